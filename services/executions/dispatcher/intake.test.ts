import { expect } from 'chai';
import { Line, Result, Result_Outcome, type Started } from '#gen/millrace/runner/v1/job.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { accept, breaches, publish, type Schema, startSchema } from '../engine/fixture.test.ts';
import { decodeLines } from '../engine/log-codec.ts';
import { openSpecs } from '../engine/specs.ts';
import { type Intake, openIntake, type Written } from './intake.ts';
import { openIntakeMemory } from './intake-memory.ts';
import type { Reply, Report } from './report.ts';

const STARTED: Started = { time: undefined, sandboxTier: 2, limits: ['memory:cgroup'], isolation: 1 };
const lines = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => Line.fromPartial({ seq: from + index, text: `${from + index}` }));

for (const how of ['behind the fence', 'by what the claim knew'] as const)
  describe(`the intake, ${how}`, function () {
    this.timeout(20_000);
    const memory = openIntakeMemory();
    let schema: Schema;
    let intake: Intake;
    let automation: Buffer;
    const me = newBytes();
    const server = newBytes();
    const written: Written[] = [];
    before(async () => {
      schema = await startSchema();
      const { db, pool } = schema;
      const lease = db.raw('NOW(6) + INTERVAL 1 HOUR');
      const now = db.raw('NOW(6)');
      const known = { endpoint: 'x:1', labels: '{}', slots: 8, tier: 2, minimum_tier: 1, protocol: 1, draining: false, state: 'LIVE' };
      await db('servers').insert({
        id: server,
        ...known,
        register_time: now,
        seen_time: now,
        owner: me,
        owner_epoch: 5,
        lease_until: lease,
      });
      automation = await publish(db);
      intake = openIntake({
        pool,
        held: () => 0,
        log: openLog('silent'),
        owner: me,
        specs: openSpecs(pool),
        memory,
        written: (all) => void written.push(...all),
      });
    });
    after(() => schema.stop());

    // Executions that were claimed for the server; answers what tells about each.
    async function claimed(count: number, overrides: Record<string, unknown> = {}) {
      const { db } = schema;
      const ids = await accept(
        db,
        Array.from({ length: count }, () => ({ automation })),
      );
      const later = db.raw('NOW(6) + INTERVAL 1 HOUR');
      const now = db.raw('NOW(6)');
      const claim = {
        workspace: newBytes(),
        attempt: 1,
        losses: 0,
        server,
        lane: 1,
        priority: 5,
        state: 'RUNNING',
        started: false,
        claim_time: now,
        deadline: later,
        expire_time: later,
      };
      const rows = ids.map((execution) => ({ ...claim, execution, claim_id: newBytes(), ...overrides }));
      await db('ready').whereIn('execution', ids).delete();
      await db('running').insert(rows);
      if (how === 'by what the claim knew') for (const one of rows) await keep(one);
      return rows.map(({ execution, claim_id }) => ({
        execution,
        tell: (told: Partial<Report>): Promise<Reply> => intake.add({ server, epoch: 5, execution, claimId: claim_id, ...told }),
      }));
    }
    // As the claim would have left it, whatever has become of it.
    async function keep({ execution, claim_id, server }: { execution: Buffer; claim_id: Buffer; server: Buffer }): Promise<void> {
      const [[{ now }]] = await schema.db.raw('SELECT NOW(6) AS now');
      const { workspace, automation, revision, creator, create_time } = await row(execution);
      const told = { automation, revision, creator, create_time, version: 1, retry_of: null, labels: null, schedule_time: null };
      const place = { lane: 1, priority: 5, tag: 0, limit_key: null, attempt: 1, losses: 0 };
      const ready = { ...place, ...told, execution, workspace, input: null, traceparent: null, base_time: create_time, now };
      const later = new Date(now.getTime() + 3_600_000);
      memory.clock.hear(now);
      memory.keep({ row: ready, workspace, claimId: claim_id, server, deadline: later, expireTime: later });
    }
    const row = (id: Buffer) => schema.db('executions').where({ id }).first();
    const running = (execution: Buffer) => schema.db('running').where({ execution }).first();
    const texts = async (execution: Buffer): Promise<string[]> => {
      const chunks = await schema.db('log_chunks').where({ execution }).orderBy('first_seq');
      return chunks.flatMap(({ codec, body }) => decodeLines(codec, body).map(({ text }) => text));
    };
    const ok = (rest: Partial<Result> = {}): Result =>
      Result.fromPartial({ outcome: Result_Outcome.SUCCEEDED, outputJson: '{"a":1}', ...rest } as object);

    it('keeps start, lines, progress and result, together or one after the other', async () => {
      const [one, other] = await claimed(2);
      if (!one || !other) throw new Error('two were claimed');
      const told = { started: STARTED, lines: lines(0, 2), progress: { fraction: 2, message: 'all' } };
      expect(await one.tell({ ...told, result: ok({ logCount: 2, logSha256: 'a'.repeat(64) }) })).to.deep.equal({
        kind: 'KEPT',
        lines: 2,
        isOver: true,
      });
      expect(await other.tell({ started: STARTED })).to.deep.equal({ kind: 'KEPT', lines: 0, isOver: false });
      expect(await row(other.execution)).to.include({ attempt_count: 1, state: 'QUEUED', version: 1 });
      await other.tell({ lines: lines(0, 3) });
      await other.tell({ progress: { fraction: 0.5, message: 'half' } });
      expect(await running(other.execution)).to.include({ started: 1, line_count: 3, progress_fraction: 0.5, progress_message: 'half' });
      await other.tell({ lines: lines(3, 4), result: ok({ logCount: 4, logSha256: 'b'.repeat(64) }) });
      expect(await row(one.execution)).to.include({ progress_fraction: 1, progress_message: 'all' });
      expect(await row(other.execution)).to.include({ progress_fraction: 0.5, progress_message: 'half' });
      for (const [{ execution }, count] of [
        [one, 2],
        [other, 4],
      ] as const) {
        expect(await row(execution)).to.include({ state: 'SUCCEEDED', output: '{"a":1}', attempt_count: 1, version: 2 });
        expect(await texts(execution)).to.have.length(count);
        expect(await schema.db('attempts').where({ execution }).first()).to.include({
          state: 'SUCCEEDED',
          log_count: count,
          sandbox_tier: 2,
        });
      }
      expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
      expect(memory.clock.now(), 'the time, as it was read with the lock').to.be.instanceOf(Date);
    });

    it('writes nothing of a claim that is not the present one', async () => {
      const [one] = await claimed(1);
      const claimId = newBytes();
      const before = written.length;
      expect(await one?.tell({ claimId, started: STARTED, lines: lines(0, 5), result: ok() })).to.deep.equal({ kind: 'STALE' });
      expect(await texts(one?.execution as Buffer)).to.deep.equal([]);
      expect(await row(one?.execution as Buffer)).to.include({ state: 'QUEUED', version: 1, attempt_count: 0 });
      expect(await running(one?.execution as Buffer)).to.include({ started: 0, line_count: 0 });
      expect(written.length).to.equal(before);
    });

    it('writes nothing for a dispatcher that does not own the server any longer', async () => {
      const [one] = await claimed(1);
      expect(await one?.tell({ epoch: 4, started: STARTED, lines: lines(0, 5) })).to.deep.equal({ kind: 'NOT_OWNER' });
      await schema.db('servers').where({ id: server }).update({ owner: newBytes() });
      expect(await one?.tell({ started: STARTED, lines: lines(0, 5), result: ok() })).to.deep.equal({ kind: 'NOT_OWNER' });
      await schema.db('servers').where({ id: server }).update({ owner: me, state: 'LOST' });
      expect(await one?.tell({ started: STARTED, result: ok() })).to.deep.equal({ kind: 'NOT_OWNER' });
      await schema.db('servers').where({ id: server }).update({ state: 'LIVE' });
      expect(await texts(one?.execution as Buffer)).to.deep.equal([]);
      expect(await running(one?.execution as Buffer)).to.include({ started: 0, line_count: 0 });
    });

    it('ends nothing by what has changed since the claim', async () => {
      const change = async (table: string, key: Record<string, unknown>, to: Record<string, unknown>, told: Partial<Report>) => {
        const [one] = await claimed(1);
        const execution = one?.execution as Buffer;
        await schema.db(table).where({ ...key, ...(table === 'running' ? { execution } : table === 'executions' ? { id: execution } : {}) }).update(to); // biome-ignore format: a line
        const reply = await one?.tell({ started: STARTED, ...told });
        await schema.db('servers').where({ id: server }).update({ owner: me, owner_epoch: 5 });
        return { reply: reply?.kind, ...(await row(execution)), texts: await texts(execution) };
      };
      const failed = Result.fromPartial({ outcome: Result_Outcome.FAILED, errorType: 'E' });
      for (const to of [{ owner: newBytes() }, { owner_epoch: 6 }])
        expect(await change('servers', { id: server }, to, { result: ok() })).to.include({ reply: 'NOT_OWNER', state: 'QUEUED' });
      expect(await change('running', {}, { state: 'CANCELLING' }, { result: failed })).to.include({ reply: 'KEPT', state: 'CANCELLED' });
      const kept = await change('running', {}, { line_count: 2 }, { lines: lines(0, 3), result: ok() });
      expect(kept).to.deep.include({ reply: 'KEPT', state: 'SUCCEEDED', texts: ['2'] });
      expect(await change('executions', {}, { version: 2 }, { result: ok() })).to.include({ reply: 'KEPT', version: 3 });
      const [one] = await claimed(1);
      await schema.db('attempts').insert({ execution: one?.execution, number: 1, state: 'RUNNING', claim_id: newBytes(), server, sandbox_tier: 2, isolation: 'FRESH', limits: '[]', start_time: schema.db.raw('NOW(6)') }); // biome-ignore format: a line
      await schema.db('running').where({ execution: one?.execution }).update({ started: 1 });
      expect((await one?.tell({ started: STARTED, result: ok() }))?.kind).to.equal('KEPT');
    });

    it('lets nobody take the server over while a commit is on its way', async () => {
      const connection = await schema.pool.getConnection();
      try {
        const { lock } = await import('./intake-store.ts');
        const [one] = await claimed(1);
        await lock(connection, me, [server], [one?.execution as Buffer], []);
        let isTaken = false;
        const takeover = schema.db('servers').where({ id: server }).update({ owner_epoch: 6 }).then(() => {
        isTaken = true;
      }); // biome-ignore format: a chain
        await schema.db.raw('DO SLEEP(0.2)');
        expect(isTaken).to.equal(false);
        await connection.query('COMMIT');
        await takeover;
        await schema.db('servers').where({ id: server }).update({ owner_epoch: 5 });
      } finally {
        connection.release();
      }
    });

    it('ends an execution once, whoever tells it how often', async () => {
      const [one] = await claimed(1);
      const told = await Promise.all(
        Array.from({ length: 5 }, () => one?.tell({ started: STARTED, lines: lines(0, 3), result: ok({ logCount: 3 }) })),
      );
      const again = await one?.tell({ result: ok({ outputJson: '"another"' }) });
      expect(told.every((reply) => reply?.kind === 'KEPT' || reply?.kind === 'STALE')).to.equal(true);
      expect(again).to.deep.equal({ kind: 'STALE' });
      expect(await row(one?.execution as Buffer)).to.include({ output: '{"a":1}', version: 2 });
      expect(await texts(one?.execution as Buffer)).to.deep.equal(['0', '1', '2']);
      expect(await schema.db('attempts').where({ execution: one?.execution })).to.have.length(1);
    });

    it('keeps each line once, although it comes again on another stream', async () => {
      const [one] = await claimed(1);
      const replies = [
        await one?.tell({ lines: lines(0, 4) }),
        await one?.tell({ lines: lines(2, 6) }),
        await one?.tell({ lines: lines(0, 3) }),
      ];
      expect(replies.map((reply) => reply?.kind === 'KEPT' && reply.lines)).to.deep.equal([4, 6, 6]);
      await Promise.all([one?.tell({ lines: lines(6, 8) }), one?.tell({ lines: lines(6, 9) }), one?.tell({ lines: lines(9, 10) })]);
      expect(await texts(one?.execution as Buffer)).to.deep.equal(Array.from({ length: 10 }, (_, index) => `${index}`));
    });

    it('gives up an attempt whose lines have a gap', async () => {
      const [one] = await claimed(1, { started: true });
      const id = one?.execution as Buffer;
      const known = {
        sandbox_tier: 2,
        isolation: 'FRESH',
        limits: '[]',
        start_time: schema.db.raw('NOW(6)'),
        claim_id: newBytes(),
        server,
      };
      await schema.db('attempts').insert({ execution: id, number: 1, state: 'RUNNING', ...known });
      await one?.tell({ lines: lines(0, 2) });
      expect(await one?.tell({ lines: lines(3, 5), result: ok() })).to.deep.equal({ kind: 'STALE' });
      expect(await texts(id)).to.deep.equal(['0', '1']);
      expect(await row(id)).to.include({ state: 'RETRYING' });
      expect(await schema.db('attempts').where({ execution: id }).first()).to.include({ state: 'LOST', log_count: null });
      expect(await schema.db('timers').where({ execution: id }).first()).to.include({ kind: 'RETRY', attempt: 2 });
    });

    it('believes nothing that came out of a sandbox', async () => {
      const [bad, big, late] = await claimed(3);
      await bad?.tell({ started: STARTED, result: ok({ outputJson: '{"a":' }) });
      expect((await row(bad?.execution as Buffer)).error.type).to.equal('OutputInvalid');
      await big?.tell({ started: STARTED, result: ok({ outputJson: `"${'x'.repeat(1024 * 1024)}"` }) });
      expect((await row(big?.execution as Buffer)).error.type).to.equal('OutputTooLarge');
      const far = new Date('2999-01-01');
      await late?.tell({ started: { ...STARTED, time: far }, progress: { fraction: Number.NaN, message: 'x'.repeat(9000) }, lines: [Line.fromPartial({ seq: 0, text: '\u0000\ud800' })], result: ok({ time: new Date(Number.NaN), logSha256: 'no', cpuSeconds: Number.NaN }) }); // biome-ignore format: a report
      const { end_time, start_time, create_time, state } = await row(late?.execution as Buffer);
      expect(state).to.equal('SUCCEEDED');
      expect(end_time - create_time).to.be.within(0, 60_000);
      expect(end_time >= start_time).to.equal(true);
    });

    it('keeps a large output apart', async () => {
      const [one] = await claimed(1);
      const output = JSON.stringify('y'.repeat(100_000));
      await one?.tell({ started: STARTED, result: ok({ outputJson: output }) });
      expect(await row(one?.execution as Buffer)).to.include({ state: 'SUCCEEDED', output: null });
      expect(await schema.db('results').where({ execution: one?.execution }).first()).to.include({ kind: 'OUTPUT', body: output });
    });
  });
