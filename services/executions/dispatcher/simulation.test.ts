import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { type Result, Result_Outcome, type Started } from '#gen/millrace/runner/v1/job.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { often } from '../../../tests/long.ts';
import { enter } from '../engine/enter.ts';
import { accept, publish, type Schema, startSchema } from '../engine/fixture.test.ts';
import { hold, release } from '../engine/hold.ts';
import { askToStop, endWaiting } from '../engine/leave.ts';
import { breachOf, emptyTables, isFinal, openModel, type Running, type Tables } from '../engine/simulation-model.test.ts';
import { lockLimits } from '../engine/slots.ts';
import { openSpecs } from '../engine/specs.ts';
import { hex } from '../engine/sql.ts';
import { move, take } from './claim-store.ts';
import { type Intake, openIntake } from './intake.ts';
import { openIntakeMemory } from './intake-memory.ts';

const COMMANDS = ['accept', 'accept', 'later', 'due', 'claim', 'claim', 'start', 'succeed', 'fail', 'lose', 'refuse', 'stale', 'cancel', 'pause', 'resume'] as const; // biome-ignore format: a list
const STARTED: Started = { time: undefined, sandboxTier: 2, limits: [], isolation: 1 };
const FAR = new Date(Date.now() + 86_400_000);
const RETRIES = { retryPolicy: { maxAttempts: 3, initialInterval: { seconds: 3600, nanos: 0 }, maxInterval: { seconds: 3600, nanos: 0 } } };

describe('the engine in memory and the one in SQL', function () {
  this.timeout(300_000);
  let schema: Schema;
  let intake: Intake;
  let automation: Buffer;
  const memory = openIntakeMemory();
  const me = newBytes();
  const server = newBytes();
  before(async () => {
    schema = await startSchema();
    const { db, pool } = schema;
    const now = db.raw('NOW(6)');
    const known = { endpoint: 'x:1', labels: '{}', slots: 8, tier: 2, minimum_tier: 1, protocol: 1, draining: false, state: 'LIVE' };
    await db('servers').insert({ id: server, ...known, register_time: now, seen_time: now, owner: me, owner_epoch: 1, lease_until: FAR });
    automation = await publish(db, RETRIES);
    const specs = openSpecs(pool);
    intake = openIntake({ pool, held: () => 0, log: openLog('silent'), owner: me, specs, memory, written: () => undefined });
  });
  after(() => schema.stop());

  const inTransaction = <T>(work: (connection: { query(sql: string): Promise<unknown[]> }) => Promise<T>): Promise<T> =>
    schema.db.transaction((tx) => work({ query: (sql) => tx.raw(sql) }));

  // A pair of engines that are told the same.
  async function pair(max: number) {
    const { db, pool } = schema;
    for (const table of ['ready', 'waiting', 'timers', 'running', 'slots', 'limits', 'attempts', 'executions', 'outbox'])
      await db(table).del();
    await db('limits').insert({ limit_key: 'k', max, used: 0 });
    const tables = emptyTables(max);
    const clock = { now: 0 };
    const model = openModel(tables, clock);
    const ids: Buffer[] = []; // by the model's id
    const claims = new Map<number, Buffer>(); // by the model's claim
    const idOf = (id: number) => ids[id] as Buffer;

    // What has just entered stands behind a timer in the database: it goes where the limit lets it.
    async function enterNow(execution: Buffer): Promise<void> {
      const row = await db('timers').where({ execution }).first();
      await inTransaction(async (connection) => {
        const limits = await lockLimits(connection, row.limit_key === null ? [] : [row.limit_key]);
        for (const sql of enter(limits, [row])) await connection.query(sql);
        await connection.query(`DELETE FROM timers WHERE execution = x'${hex(execution)}'`);
      });
    }
    async function acceptOne(key: string | null, isLater: boolean): Promise<void> {
      const [id] = (await accept(db, [{ automation, limitKey: key, inMs: 3_600_000 }])) as [Buffer];
      ids.push(id);
      model.accept(ids.length - 1, `${ids.length}`, key, isLater ? 3_600_000 : 0);
      if (!isLater) await enterNow(id);
    }
    async function claim(): Promise<void> {
      const claimed = model.claim(0);
      const connection = await pool.getConnection();
      const { sets } = await take(connection, me, [server], [{ lane: 1, count: 1, mark: undefined }], false);
      const row = sets[0]?.[0];
      if (row && claimed) {
        claims.set(claimed.claim, randomBytes(16));
        const one = { row, workspace: newBytes(), claimId: claims.get(claimed.claim) as Buffer, server, deadline: FAR, expireTime: FAR };
        await move(connection, [one], []);
        memory.clock.hear(row.now);
        memory.keep(one);
      } else await connection.query('ROLLBACK');
      connection.release();
      expect(row?.execution.toString('hex')).to.equal(claimed && hex(idOf(claimed.id)));
    }
    const tell = ({ id, claim: number }: Running, told: object) =>
      intake.add({ server, epoch: 1, execution: idOf(id), claimId: claims.get(number) as Buffer, ...told });
    const result = (outcome: Result['outcome']) => ({ outcome, outputJson: '1', errorType: 'E', errorMessage: '', traceback: '' });

    async function obey(command: (typeof COMMANDS)[number], choice: number): Promise<void> {
      const pick = <T>(all: readonly T[]): T | undefined => all[choice % Math.max(1, all.length)];
      const running = pick([...tables.running.values()]);
      const open = pick([...tables.executions].filter(([, { state }]) => !isFinal(state)).map(([id]) => id));
      if (command === 'accept' || command === 'later') return acceptOne(choice % 3 > 0 ? 'k' : null, command === 'later');
      if (command === 'claim') return claim();
      if (command === 'due') {
        const timer = pick(tables.timers.filter(({ kind }) => kind !== 'PAUSE'));
        if (!timer) return;
        timer.due = clock.now;
        model.due();
        return enterNow(idOf(timer.id));
      }
      if (running && ['start', 'succeed', 'fail', 'lose', 'refuse', 'stale'].includes(command)) {
        const { id, claim: number, attempt, started } = running;
        const seen = { ...running };
        if (command === 'stale') {
          expect(model.mayWrite(id, -1, attempt)).to.equal(false);
          const reply = await intake.add({ server, epoch: 1, execution: idOf(id), claimId: randomBytes(16), started: STARTED });
          expect(reply.kind).to.equal('STALE');
        } else if (command === 'lose') {
          model.lose(id, number, 0.5);
          await tell(seen, { given: 'LOST' });
        } else if (command === 'refuse') {
          if (started) return;
          model.refuse(id, number);
          await tell(seen, { given: 'REFUSED' });
        } else {
          const isWell = command === 'succeed';
          const failed = { kind: 'FAILED', type: 'E', message: '', traceback: '' } as const;
          const outcome = isWell ? ({ kind: 'SUCCEEDED', output: '1' } as const) : failed;
          model.write(id, number, { attempt, lines: 0, outcome: command === 'start' ? undefined : outcome }, 0.5);
          const full = { ...result(isWell ? Result_Outcome.SUCCEEDED : Result_Outcome.FAILED), cpuSeconds: 0, peakMemoryKib: 0, logCount: 0, logSha256: 'a'.repeat(64), logBytes: 0, droppedBytes: 0, time: undefined }; // biome-ignore format: a row
          const reply = await tell(seen, { started: STARTED, ...(command === 'start' ? {} : { result: full }) });
          expect(reply.kind).to.equal('KEPT');
        }
        return;
      }
      if (open === undefined) return;
      const execution = idOf(open);
      if (command === 'cancel') {
        model.cancel(open);
        const asked = await inTransaction((connection) => askToStop(connection, execution, 'enough'));
        if (!asked) await inTransaction((connection) => endWaiting(connection, [{ execution, to: 'CANCELLED' }]));
      } else if (command === 'pause' && !tables.timers.some(({ id, kind }) => id === open && kind === 'PAUSE')) {
        model.pause(open);
        await inTransaction((connection) => hold(connection, execution, FAR));
      } else if (command === 'resume') {
        model.resume(open);
        await inTransaction((connection) => release(connection, execution, { toClose: FAR, toStartMs: undefined }));
      }
    }

    // The same things, as both have them.
    const inMemory = (all: Tables) => ({
      ready: all.ready.map(({ id, attempt, losses }) => `${hex(idOf(id))} ${attempt} ${losses}`),
      waiting: all.waiting.map(({ id, attempt, losses }) => `${hex(idOf(id))} ${attempt} ${losses}`),
      timers: all.timers.map(({ id, kind, attempt }) => `${hex(idOf(id))} ${kind} ${attempt}`).sort(),
      running: [...all.running.values()]
        .map((row) => `${hex(idOf(row.id))} ${row.state} ${row.started} ${row.attempt} ${row.losses}`)
        .sort(),
      used: all.limits.get('k')?.used,
      slots: [...all.slots].map((slot) => hex(idOf(Number(slot.split(' ')[1])))).sort(),
      ended: [...all.executions].filter(([, { state }]) => isFinal(state)).map(([id, { state, version }]) => `${hex(idOf(id))} ${state} ${version}`).sort(), // biome-ignore format: a row
    });
    async function inSql() {
      const [ready, waiting, timers, running, limit, slots, executions] = await Promise.all([
        db('ready').orderBy(['priority', 'tag', 'execution']),
        db('waiting').orderBy('seq'),
        db('timers'),
        db('running'),
        db('limits').first(),
        db('slots'),
        db('executions'),
      ]);
      return {
        ready: ready.map(({ execution, attempt, losses }) => `${hex(execution)} ${attempt} ${losses}`),
        waiting: waiting.map(({ execution, attempt, losses }) => `${hex(execution)} ${attempt} ${losses}`),
        timers: timers.map(({ execution, kind, attempt }) => `${hex(execution)} ${kind} ${attempt}`).sort(),
        running: running.map((row) => `${hex(row.execution)} ${row.state} ${row.started === 1} ${row.attempt} ${row.losses}`).sort(),
        used: limit.used,
        slots: slots.map(({ execution }) => hex(execution)).sort(),
        ended: executions.filter(({ state }) => isFinal(state)).map(({ id, state, version }) => `${hex(id)} ${state} ${version}`).sort(), // biome-ignore format: a row
      };
    }
    return { obey, same: async () => expect(await inSql()).to.deep.equal(inMemory(tables)), breach: () => breachOf(tables) };
  }

  it('stand the same after the same commands', async () => {
    const command = fc.record({ command: fc.constantFrom(...COMMANDS), choice: fc.nat(20) });
    const property = fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }),
      fc.array(command, { minLength: 25, maxLength: 40 }),
      async (max, all) => {
        const { obey, same, breach } = await pair(max);
        for (const one of all) {
          await obey(one.command, one.choice);
          await same();
          expect(breach()).to.equal(undefined);
        }
      },
    );
    await fc.assert(property, { ...often('commands to both engines', 8), endOnFailure: true });
  });
});
