import { expect } from 'chai';
import fc from 'fast-check';
import { Line } from '#gen/millrace/runner/v1/job.ts';
import { newBytes } from '#platform/id.ts';
import { often, patience } from '../../../tests/long.ts';
import { type Schema, startSchema } from '../engine/fixture.test.ts';
import { decodeLines, encodeLines, PLAIN, ZSTD } from '../engine/log-codec.ts';
import { compact, segments } from './compact.ts';

const line = (seq: number, size: number): Line => Line.fromPartial({ seq, text: `${seq}:${'x'.repeat(size)}` });
const chunkOf = (lines: Line[]) => {
  const body = encodeLines(lines);
  return { first_seq: lines[0]?.seq ?? 0, count: lines.length, bytes: body.length, body };
};

describe('compaction', function () {
  this.timeout(patience(20_000));

  it('keeps every line, in segments of a bounded size', () => {
    const sizes = fc.array(fc.array(fc.integer({ min: 0, max: 60_000 }), { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(sizes, (chunks) => {
        let seq = 0;
        const made = chunks.map((lines) => chunkOf(lines.map((size) => line(seq++, size))));
        const merged = segments(made);
        const lines = merged.flatMap(({ body }) => decodeLines(PLAIN, body));
        expect(lines.map((one) => one.seq)).to.deep.equal(Array.from({ length: seq }, (_, index) => index));
        for (const { first, count, body } of merged) {
          expect(decodeLines(PLAIN, body).map((one) => one.seq)).to.deep.equal(Array.from({ length: count }, (_, index) => first + index));
          expect(body.length <= 256 * 1024 || count === 1).to.equal(true);
        }
      }),
      often('merged log chunks', 40),
    );
  });

  describe('in the database', () => {
    let schema: Schema;
    before(async () => {
      schema = await startSchema();
    });
    after(() => schema.stop());

    it('merges chunks again and again, beside those that are still being written', async () => {
      const execution = newBytes();
      const read = async () => {
        const rows = await schema.db('log_chunks').where({ execution, attempt: 1 }).orderBy('first_seq');
        return { rows, seqs: rows.flatMap(({ codec, body }) => decodeLines(codec, body).map(({ seq }) => seq)) };
      };
      let seq = 0;
      for (let round = 0; round < 3; round += 1) {
        for (let chunk = 0; chunk < 30; chunk += 1) {
          const { first_seq, count, bytes, body } = chunkOf([line(seq++, 3000), line(seq++, 10)]);
          await schema.db('log_chunks').insert({ execution, attempt: 1, first_seq, count, bytes, codec: PLAIN, body });
        }
        await compact(schema.pool, execution, 1);
        const { rows, seqs } = await read();
        expect(seqs).to.deep.equal(Array.from({ length: seq }, (_, index) => index));
        expect(rows).to.have.length(round + 1);
        expect(rows.every(({ codec, body, bytes }) => codec === ZSTD && body.length < bytes)).to.equal(true);
      }
    });
  });
});
