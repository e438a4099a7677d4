import { expect } from 'chai';
import { register } from 'prom-client';
import { Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import type { TailExecutionLogsResponse as Frame } from '#gen/millrace/executions/v1/execution_service.ts';
import { TailExecutionLogsResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import { openBus } from '#platform/bus.ts';
import { openPool } from '#platform/db.ts';
import { toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { type Person, until, type World } from '../../tests/world.ts';
import { ZSTD } from './engine/log-codec.ts';
import * as notices from './engine/notices.ts';
import {
  caught,
  claim,
  clientOf,
  collect,
  compact,
  draft,
  endAttempt,
  endExecution,
  lineOf,
  lines,
  publish,
  sha,
  startAttempt,
  startExecutions,
  writeLines,
} from './fixture.test.ts';
import { openTails } from './tail.ts';

const KEEP_ALIVE_MS = 300;

describe('the tail of a log', () => {
  let world: World;
  let ada: Person;
  let executions: ReturnType<typeof clientOf>;
  let automationId: string;

  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_KEEP_ALIVE_MS: String(KEEP_ALIVE_MS) });
    ada = world.person();
    executions = clientOf(world, ada);
    automationId = await publish(world, { workspace: ada.workspace });
  });
  after(() => world.stop());

  const running = async (): Promise<string> => {
    const { id } = await executions.createExecution({ execution: draft(automationId), requestId: '' });
    await claim(world, id);
    await startAttempt(world, id, 1);
    return id;
  };
  const tail = (id: string, cursor = '', follow = true) => executions.tailExecutionLogs({ id, cursor, follow });
  const texts = (frames: Frame[]): string[] => frames.flatMap(({ entry }) => (entry ? [entry.text] : []));

  // Three attempts: two that ended with their server's word, one that nobody closed.
  const finished = async (): Promise<string> => {
    const id = await running();
    await writeLines(world, id, 1, lines(0, 3));
    await writeLines(world, id, 1, lines(3, 7), ZSTD);
    await endAttempt(world, id, 1, 'FAILED', lines(0, 7));
    await startAttempt(world, id, 2);
    await endAttempt(world, id, 2, 'FAILED', []);
    await startAttempt(world, id, 3);
    await writeLines(world, id, 3, [lineOf(0, 'a'), lineOf(1, 'b', { partial: true }), lineOf(2, 'c', { stream: 3, level: 'WARNING' })]);
    await endAttempt(world, id, 3, 'LOST', undefined);
    await endExecution(world, id, 'FAILED');
    return id;
  };

  it('shows every attempt in order, each closed by count and hash, then the end', async () => {
    const frames = await collect(tail(await finished()));
    const kinds = frames.map((frame) => Object.keys(frame).find((key) => frame[key as keyof Frame] !== undefined));
    expect(kinds).to.deep.equal([
      ...Array.from({ length: 7 }, () => 'entry'),
      'attemptEnd',
      'attemptEnd',
      'entry',
      'entry',
      'entry',
      'attemptEnd',
      'end',
    ]);
    expect(frames[7]?.attemptEnd).to.deep.equal({ attempt: 1, count: 7, sha256: sha(lines(0, 7)), droppedBytes: 0 });
    expect(frames[8]?.attemptEnd).to.deep.include({ attempt: 2, count: 0, sha256: sha([]) });
    const last = [lineOf(0, 'a'), lineOf(1, 'b', { partial: true }), lineOf(2, 'c')];
    expect(frames[12]?.attemptEnd).to.deep.include({ attempt: 3, count: 3, sha256: sha(last) });
    expect(frames[11]?.entry).to.deep.include({
      cursor: '3.2',
      attempt: 3,
      seq: 2,
      stream: 3,
      level: 'WARNING',
      text: 'c',
      partial: false,
    });
    expect(frames[11]?.entry?.time).to.deep.equal(lineOf(2).time);
    expect(frames.at(-1)?.end).to.deep.equal({ code: 0, message: '', state: State.FAILED });
  });

  it('goes on after any cursor, nothing lost or doubled', async () => {
    const id = await finished();
    const whole = await collect(tail(id));
    for (const [index, { entry }] of whole.entries()) {
      if (!entry) continue;
      expect(await collect(tail(id, entry.cursor, index % 2 === 0)), entry.cursor).to.deep.equal(whole.slice(index + 1));
    }
  });

  it('refuses cursors that it never gave', async () => {
    const id = await finished();
    for (const cursor of ['x', '1', '1.7', '2.0', '4.0', '0.0', '1.-1', '1.00']) {
      expect(await caught(collect(tail(id, cursor))), cursor).to.include({ reason: 'CURSOR_INVALID' });
    }
    expect(await caught(collect(clientOf(world, world.person()).tailExecutionLogs({ id, cursor: '', follow: true })))).to.include({
      reason: 'RESOURCE_NOT_FOUND',
    });
  });

  it('shows what is there and ends when it does not follow', async () => {
    const id = await running();
    await writeLines(world, id, 1, lines(0, 3));
    const frames = await collect(tail(id, '', false));
    expect(texts(frames)).to.deep.equal(['line 0', 'line 1', 'line 2']);
    expect(frames.at(-1)?.end).to.deep.equal({ code: 0, message: '', state: State.RUNNING });
  });

  it('ends at once for what never started', async () => {
    const { id } = await executions.createExecution({ execution: draft(automationId), requestId: '' });
    await endExecution(world, id, 'CANCELLED');
    expect(await collect(tail(id))).to.deep.equal([
      { ...TailExecutionLogsResponse.fromPartial({}), end: { code: 0, message: '', state: State.CANCELLED } },
    ]);
  });

  // Reads in the background, so that a test can wait for what has come.
  function reader(stream: AsyncIterable<Frame>) {
    const frames: Frame[] = [];
    let keepAlives = 0;
    const done = (async () => {
      for await (const frame of stream) {
        if (frame.keepAlive) keepAlives += 1;
        else frames.push(frame);
      }
    })();
    return { frames, done, keepAlives: () => keepAlives };
  }

  it('follows without any notice: right within a keep-alive, the same for two readers, over compaction and attempts', async () => {
    const id = await running();
    const [one, two] = [reader(tail(id)), reader(tail(id))];
    await writeLines(world, id, 1, lines(0, 5));
    await until('the first lines', () => one.frames.length === 5 && two.frames.length === 5, 3 * KEEP_ALIVE_MS);
    await writeLines(world, id, 1, lines(5, 8));
    await writeLines(world, id, 1, lines(8, 9));
    await compact(world, id, 1, lines(0, 9));
    await until('lines after the compaction', () => one.frames.length === 9 && two.frames.length === 9, 3 * KEEP_ALIVE_MS);
    const late = reader(tail(id, '1.6'));
    await endAttempt(world, id, 1, 'FAILED', lines(0, 9));
    await until('the end of the attempt', () => one.frames.at(-1)?.attemptEnd && late.frames.at(-1)?.attemptEnd, 3 * KEEP_ALIVE_MS);
    await startAttempt(world, id, 2);
    await writeLines(world, id, 2, lines(0, 2));
    await endAttempt(world, id, 2, 'SUCCEEDED', lines(0, 2));
    await endExecution(world, id, 'SUCCEEDED');
    await Promise.all([one.done, two.done, late.done]);
    expect(one.frames).to.deep.equal(two.frames);
    expect(late.frames).to.deep.equal(one.frames.slice(7));
    expect(one.frames).to.deep.equal(await collect(tail(id)));
    expect(one.frames.at(-1)?.end).to.deep.include({ code: 0, state: State.SUCCEEDED });
  });

  it('closes a long log after its last line', async () => {
    const id = await running();
    const all = Array.from({ length: 1000 }, (_, seq) => lineOf(seq, 'x'.repeat(1000)));
    for (let from = 0; from < 1000; from += 100) await writeLines(world, id, 1, all.slice(from, from + 100), ZSTD);
    await endAttempt(world, id, 1, 'SUCCEEDED', all);
    await endExecution(world, id, 'SUCCEEDED');
    const frames = await collect(tail(id));
    expect(texts(frames.slice(0, 1000))).to.have.length(1000);
    expect(frames[1000]?.attemptEnd).to.deep.include({ count: 1000, sha256: sha(all) });
    expect(frames).to.have.length(1002);
  });

  it('gives signs of life while nothing happens', async () => {
    const id = await running();
    const one = reader(tail(id));
    await until('two signs of life', () => one.keepAlives() >= 2);
    await endAttempt(world, id, 1, 'SUCCEEDED', []);
    await endExecution(world, id, 'SUCCEEDED');
    await one.done;
  });

  it('forgets readers that have gone', async () => {
    const id = await running();
    await writeLines(world, id, 1, lines(0, 2));
    const open = async (): Promise<number> =>
      (await register.getSingleMetric('millrace_executions_log_readers')?.get())?.values[0]?.value ?? 0;
    expect(await open()).to.equal(0);
    for await (const { entry } of tail(id)) if (entry?.seq === 1) break;
    await until('nobody reads', async () => (await open()) === 0);
  });

  it('says UNAVAILABLE in its last frame when the server stops, and goes on from there afterwards', async () => {
    const id = await running();
    await writeLines(world, id, 1, lines(0, 2));
    const one = reader(tail(id));
    await until('the lines', () => one.frames.length === 2);
    await world.restart();
    await one.done;
    expect(one.frames.at(-1)?.end?.code).to.equal(14);
    await writeLines(world, id, 1, lines(2, 3));
    executions = clientOf(world, ada);
    expect(texts(await collect(tail(id, one.frames[1]?.entry?.cursor, false)))).to.deep.equal(['line 2']);
  });

  describe('with notices alone', () => {
    let pool: ReturnType<typeof openPool>;
    let bus: ReturnType<typeof openBus>;
    let reads: string[];
    before(async () => {
      bus = openBus(world.config, openLog('silent'));
      await bus.connection();
      pool = openPool(world.config, `${world.config.databasePrefix}_executions`, 4);
      const query = pool.query.bind(pool);
      const counting = async (sql: string, values: unknown) => {
        const answer = await query(sql, values as unknown[]);
        reads.push(sql);
        return answer;
      };
      pool.query = counting as unknown as typeof pool.query;
    });
    beforeEach(() => {
      reads = [];
    });
    after(async () => {
      await pool.end();
      await bus.stop();
    });
    const never = new AbortController().signal;
    const tails = () => openTails({ pool, bus, everyMs: 3_600_000 });
    const next = async (frames: AsyncGenerator<{ entry?: { seq: number } } | object>, count: number): Promise<(number | undefined)[]> => {
      const seen: (number | undefined)[] = [];
      while (seen.length < count) {
        const { value, done } = await frames.next();
        if (done) break;
        seen.push((value as { entry?: { seq: number } }).entry?.seq);
      }
      return seen;
    };

    it('looks when told to, once for all readers that are at the end', async () => {
      const id = await running();
      const all = tails();
      const readers = Array.from({ length: 20 }, () => all.frames(toBytes('execution', id), { attempt: 1, seq: 0 }, true, never));
      const firsts = readers.map((one) => next(one, 2));
      await until('the first look', () => reads.length > 0);
      await writeLines(world, id, 1, lines(0, 2));
      bus.notify(notices.logs(id));
      for (const first of firsts) expect(await first).to.deep.equal([0, 1]);
      expect(reads.length).to.be.at.most(4);
      expect(all.watched()).to.equal(1);
      await Promise.all(readers.map((one) => one.return(undefined)));
      expect(all.watched()).to.equal(0);
    });

    it('keeps a bounded ring beside a slow reader, who still sees everything', async () => {
      const id = await running();
      const all = tails();
      const execution = toBytes('execution', id);
      const text = 'x'.repeat(1000);
      for (let from = 0; from < 3000; from += 100) {
        await writeLines(
          world,
          id,
          1,
          Array.from({ length: 100 }, (_, index) => lineOf(from + index, text)),
          ZSTD,
        );
      }
      const slow = all.frames(execution, { attempt: 1, seq: 0 }, true, never);
      expect(await next(slow, 1)).to.deep.equal([0]);
      const fast = all.frames(execution, { attempt: 1, seq: 0 }, true, never);
      expect(await next(fast, 3000)).to.deep.equal(Array.from({ length: 3000 }, (_, seq) => seq));
      expect(all.heldBytes()).to.be.within(100_000, 256 * 1024);
      await writeLines(world, id, 1, [lineOf(3000)]);
      bus.notify(notices.logs(id));
      expect(await next(fast, 1)).to.deep.equal([3000]); // the slow reader holds nobody up
      expect(await next(slow, 3000)).to.deep.equal(Array.from({ length: 3000 }, (_, index) => index + 1));
      await Promise.all([slow.return(undefined), fast.return(undefined)]);
    });

    it('finds no line twice and none missing, however readers, writers and compaction meet', async () => {
      const id = await running();
      const all = tails();
      const execution = toBytes('execution', id);
      const total = 400;
      const readers = Array.from({ length: 6 }, async (_, index) => {
        const from = index % 3 === 0 ? 0 : index * 20;
        const frames = all.frames(execution, { attempt: 1, seq: from }, true, never);
        const seen = await next(frames, total - from);
        await frames.return(undefined);
        return seen.map((seq) => (seq ?? Number.NaN) - from);
      });
      for (let seq = 0; seq < total; ) {
        const size = 1 + (seq % 7);
        await writeLines(world, id, 1, lines(seq, Math.min(seq + size, total)));
        seq += size;
        if (seq % 5 === 0) await compact(world, id, 1, lines(0, Math.min(seq, total)));
        bus.notify(notices.logs(id));
      }
      for (const seen of await Promise.all(readers)) expect(seen).to.deep.equal(Array.from({ length: seen.length }, (_, index) => index));
    });

    it('says that lines are missing rather than to leave them out', async () => {
      const id = await running();
      await writeLines(world, id, 1, lines(0, 2));
      await writeLines(world, id, 1, lines(3, 4));
      const frames = await collect(tail(id));
      expect(texts(frames)).to.deep.equal(['line 0', 'line 1']);
      expect(frames.at(-1)?.end).to.deep.include({ code: 15 });
    });
  });
});
