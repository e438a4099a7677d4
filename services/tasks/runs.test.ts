import { expect } from 'chai';
import fc from 'fast-check';
import { TailExecutionLogsResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import { often } from '../../tests/long.ts';
import { lastLines } from './runs.ts';

describe('the log of a run', () => {
  const line = (text: string, partial = false) => TailExecutionLogsResponse.fromPartial({ entry: { text, partial } });
  const end = (code = 0) => TailExecutionLogsResponse.fromPartial({ end: { code } });
  async function* stream(...frames: TailExecutionLogsResponse[]) {
    yield* frames;
  }
  const LIMIT = 64 * 1024;

  it('is its lines, with the pieces of a long line put together', async () => {
    const keepAlive = TailExecutionLogsResponse.fromPartial({ keepAlive: {} });
    expect(await lastLines(stream(line('one'), keepAlive, line('tw', true), line('o'), line(''), end()))).to.equal('one\ntwo\n\n');
    expect(await lastLines(stream(end()))).to.equal('');
  });

  it('is the last 64 KiB of any log, and never begins with a piece of a character', async () => {
    const texts = fc.array(
      fc.string({ unit: 'binary', maxLength: 30 }).map((text) => text.repeat(3000)),
      { maxLength: 12 },
    ); // prettier-ignore
    await fc.assert(
      fc.asyncProperty(texts, async (all) => {
        const whole = Buffer.from(all.map((text) => `${text}\n`).join(''));
        const kept = await lastLines(stream(...all.map((text) => line(text)), end()));
        expect(whole.toString().endsWith(kept)).to.equal(true);
        expect(Buffer.byteLength(kept)).to.be.within(Math.min(whole.length, LIMIT - 3), LIMIT);
      }),
      often('the last lines of a log', 50),
    );
  });

  it('is not taken for whole when it broke off', async () => {
    for (const frames of [[line('one')], [line('one'), end(14)]]) {
      expect(await lastLines(stream(...frames)).catch((error) => error.reason)).to.equal('DEPENDENCY_UNAVAILABLE');
    }
  });
});
