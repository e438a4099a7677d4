import { expect } from 'chai';
import fc from 'fast-check';
import { Line, Line_Stream } from '#gen/millrace/runner/v1/job.ts';
import { compress, decodeLines, encodeLines, formatCursor, PLAIN, parseCursor, ZSTD } from './log-codec.ts';
import { nextTag } from './tags.ts';

const lines = fc
  .array(fc.record({ seq: fc.nat(), text: fc.string({ unit: 'grapheme' }), level: fc.constantFrom('', 'INFO'), partial: fc.boolean() }))
  .map((some) => some.map((one) => Line.fromPartial({ ...one, stream: Line_Stream.STDERR, time: new Date('2026-01-02T03:04:05.678Z') })));

describe('the log codec', () => {
  it('gives back what it was given, plain or compressed, chunk behind chunk', () => {
    fc.assert(
      fc.property(lines, lines, (a, b) => {
        const body = Buffer.concat([encodeLines(a), encodeLines(b)]);
        expect(decodeLines(PLAIN, body)).to.deep.equal([...a, ...b]);
        expect(decodeLines(ZSTD, compress(body))).to.deep.equal([...a, ...b]);
      }),
    );
  });

  it('reads its own cursors and no others', () => {
    expect(parseCursor(formatCursor(3, 0))).to.deep.equal({ attempt: 3, seq: 0 });
    for (const wrong of ['', '0.1', '1', '1.', '01.2', '1.-1', '1.2.3', ' 1.2', '1.99999999999'])
      expect(parseCursor(wrong), wrong).to.equal(undefined);
  });
});

describe('tags', () => {
  it('grow strictly, near the time in microseconds', () => {
    const tags = Array.from({ length: 10_000 }, nextTag);
    expect(tags.every((tag, index) => index === 0 || tag > (tags[index - 1] ?? 0))).to.equal(true);
    expect(Math.abs((tags[0] ?? 0) / 1000 - Date.now())).to.be.below(5000);
    expect(Number.isSafeInteger(tags.at(-1))).to.equal(true);
  });
});
