import { expect } from 'chai';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { type Person, until } from '../../tests/world.ts';
import { openTimers } from './dispatcher/timers.ts';
import { accept, breaches, publish as publishRow, type Schema, startSchema } from './engine/fixture.test.ts';
import { hold, release } from './engine/hold.ts';
import { openSpecs } from './engine/specs.ts';
import { caught, claim, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';

describe('holding what waits', () => {
  let schema: Schema;
  before(async () => {
    schema = await startSchema();
  });
  after(() => schema.stop());

  const { db } = { db: () => schema.db };
  const within = <T>(work: (connection: { query(sql: string): Promise<unknown[]> }) => Promise<T>): Promise<T> =>
    db().transaction((tx) => work({ query: (sql) => tx.raw(sql) }));
  const inAnHour = () => new Date(Date.now() + 3_600_000);
  const pause = (id: Buffer, toClose = inAnHour()) => within((connection) => hold(connection, id, toClose));
  const resume = (id: Buffer, toStartMs?: number) => within((connection) => release(connection, id, { toClose: inAnHour(), toStartMs }));
  const place = async (id: Buffer): Promise<string> => {
    const found: string[] = [];
    for (const table of ['ready', 'waiting', 'timers', 'running'])
      for (const { kind } of await db()(table).where({ execution: id })) found.push(kind ?? table);
    return found.join();
  };
  const clean = async () => expect(await breaches(db())).to.deep.equal({ misplaced: 0, slots: 0 });

  it('gives the slot of a held one on, and takes one again when it goes on', async () => {
    await db()('limits').insert({ limit_key: 'a', max: 1, used: 1 });
    const [first, second] = (await accept(db(), [
      { limitKey: 'a', lane: 3 },
      { limitKey: 'a', lane: 4, waits: true },
    ])) as [Buffer, Buffer];
    expect(await pause(first)).to.deep.equal({ lanes: new Set([4]), isTimed: false });
    expect([await place(first), await place(second)]).to.deep.equal(['PAUSE', 'ready']);
    await clean();
    expect(await resume(first)).to.deep.equal({ lanes: new Set([3]), isTimed: false });
    expect(await place(first)).to.equal('waiting');
    await clean();
    expect(await pause(first)).to.deep.equal({ lanes: new Set(), isTimed: false });
    expect(await pause(second)).to.deep.equal({ lanes: new Set(), isTimed: false });
    await resume(first);
    await resume(second);
    expect([await place(first), await place(second)]).to.deep.equal(['ready', 'waiting']);
    await clean();
  });

  it('brings it back to what lies ahead: its scheduled time, or its next attempt', async () => {
    const [later, retry, past] = (await accept(db(), [{ inMs: 60_000 }, { inMs: 60_000 }, { inMs: -1 }])) as [Buffer, Buffer, Buffer];
    await db()('timers').where({ execution: retry }).update({ kind: 'RETRY', attempt: 2 });
    const due = async (id: Buffer) => (await db()('timers').where({ execution: id }).first())?.due_time?.getTime();
    const before = [await due(later), await due(retry)];
    for (const id of [later, retry, past]) await pause(id);
    expect(await due(later)).to.be.above(Date.now() + 3_000_000);
    for (const id of [later, retry, past]) await resume(id);
    expect([await place(later), await place(retry), await place(past)]).to.deep.equal(['START', 'RETRY', 'ready']);
    expect([await due(later), await due(retry)]).to.deep.equal(before);
    const states = await Promise.all([later, retry, past].map(async (id) => (await db()('executions').where({ id }).first()).state));
    expect(states).to.deep.equal(['SCHEDULED', 'RETRYING', 'QUEUED']);
  });

  it('begins schedule-to-start anew, within schedule-to-close', async () => {
    const [id] = (await accept(db(), [{}])) as [Buffer];
    await pause(id);
    await resume(id, 5000);
    const { expire_time } = await db()('ready').where({ execution: id }).first();
    expect(expire_time.getTime() - Date.now()).to.be.within(0, 6000);
  });

  it('does nothing to what does not wait, or is not held', async () => {
    const [id] = (await accept(db(), [{}])) as [Buffer];
    expect(await resume(id)).to.equal(undefined);
    await db()('ready').where({ execution: id }).delete();
    expect(await pause(id)).to.equal(undefined);
    await db()('executions').where({ id }).delete();
  });

  it('ends when its time is over, though nobody lets it go on, and nothing starts it', async () => {
    const automation = await publishRow(db(), { timeouts: { scheduleToClose: { seconds: 1, nanos: 0 } } });
    const [id, other] = (await accept(db(), [{ automation }, { automation }])) as [Buffer, Buffer];
    await pause(other);
    const { create_time } = await db()('executions').where({ id }).first();
    await pause(id, new Date(create_time.getTime() + 1000));
    const { pool } = schema;
    const told: string[] = [];
    const timers = openTimers({
      pool,
      log: openLog('silent'),
      specs: openSpecs(pool),
      due: (ids) => told.push(...ids.map((one) => one.toString('hex'))),
      crowded: () => undefined,
      ended: () => undefined,
    });
    const row = () => db()('executions').where({ id }).first();
    await until('its end', async () => (await row()).state === 'TIMED_OUT');
    await timers.stop();
    expect((await row()).error.type).to.equal('ScheduleToCloseTimeout');
    expect(told).to.deep.equal([]);
    expect(await place(other)).to.equal('PAUSE');
    await clean();
  });
});

describe('steering executions over the wire', () => {
  let world: Awaited<ReturnType<typeof startExecutions>>;
  let ada: Person;
  let automationId: string;
  before(async () => {
    world = await startExecutions();
  });
  after(() => world.stop());
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace });
  });
  const control = () => world.as(ada, ControlServiceService);
  const executions = () => clientOf(world, ada);
  const create = async (rest: Partial<Execution> = {}) =>
    (await executions().createExecution({ execution: draft(automationId, rest), requestId: '' })).id;

  it('pauses and resumes, as often as asked', async () => {
    const id = await create();
    for (let again = 0; again < 2; again += 1) expect((await control().pauseExecution({ id })).state).to.equal(State.PAUSED);
    expect((await executions().listExecutions({ ...ALL, states: [State.PAUSED] })).executions.map((one) => one.id)).to.deep.equal([id]);
    for (let again = 0; again < 2; again += 1) expect((await control().resumeExecution({ id })).state).to.equal(State.QUEUED);
    await control().pauseExecution({ id });
    expect((await executions().cancelExecution({ id, reason: '' })).state).to.equal(State.CANCELLED);
  });

  it('refuses to pause what runs or has ended, and what is elsewhere', async () => {
    const [running, ended] = [await create(), await create()];
    await claim(world, running);
    await endExecution(world, ended, 'SUCCEEDED');
    expect(await caught(control().pauseExecution({ id: running }))).to.include({ reason: 'EXECUTION_RUNNING' });
    expect((await control().resumeExecution({ id: running })).state).to.equal(State.RUNNING);
    for (const ask of [control().pauseExecution, control().resumeExecution])
      expect(await caught(ask({ id: ended }))).to.include({ reason: 'EXECUTION_ENDED' });
    const stranger = world.as(world.person(), ControlServiceService);
    expect(await caught(stranger.pauseExecution({ id: running }))).to.include({ reason: 'RESOURCE_NOT_FOUND' });
    const viewer = world.as({ ...ada, scopes: ['executions.read'] }, ControlServiceService);
    expect(await caught(viewer.pauseExecution({ id: running }))).to.include({ reason: 'PERMISSION_MISSING' });
  });

  it('repeats with the same input or another, checked against the schema', async () => {
    automationId = await publish(world, {
      workspace: ada.workspace,
      specs: [{ inputSchema: { type: 'object', properties: { n: { type: 'integer' } } } }],
    });
    const id = await create({ input: { n: 1 }, labels: { a: 'b' } });
    await endExecution(world, id, 'FAILED');
    expect(await executions().retryExecution({ id, requestId: '' })).to.deep.include({ input: { n: 1 }, retryOf: id, labels: { a: 'b' } });
    expect(await executions().retryExecution({ id, requestId: '', input: { n: 2 } })).to.deep.include({ input: { n: 2 }, retryOf: id });
    expect(await caught(executions().retryExecution({ id, requestId: '', input: { n: 'x' } }))).to.include({ reason: 'INPUT_INVALID' });
  });

  it('shortens the grace of what is being cancelled, and never lengthens it', async () => {
    const id = await create();
    await claim(world, id);
    const left = async () => {
      const sql = 'SELECT TIMESTAMPDIFF(MICROSECOND, NOW(6), deadline) / 1e6 AS seconds FROM running WHERE execution = ?';
      const [[row]] = await world.db('executions').raw(sql, [toBytes('execution', id)]);
      return Number(row.seconds);
    };
    const cancel = (seconds?: number) =>
      executions().cancelExecution({ id, reason: '', ...(seconds === undefined ? {} : { grace: { seconds, nanos: 0 } }) });
    expect((await cancel()).state).to.equal(State.CANCELLING);
    expect(await left()).to.be.within(20, 25);
    await cancel(5);
    expect(await left()).to.be.within(1, 5);
    await cancel(9);
    await cancel();
    expect(await left()).to.be.below(5);
    await cancel(0);
    expect(await left()).to.be.at.most(0);
    await endExecution(world, id, 'CANCELLED');
  });

  it('never gives more time to stop than was left to run', async () => {
    const id = await create();
    await claim(world, id, { deadline: world.db('executions').raw('NOW(6) + INTERVAL 3 SECOND') });
    await executions().cancelExecution({ id, reason: '' });
    const sql = 'SELECT deadline <= NOW(6) + INTERVAL 3 SECOND AS is_kept FROM running WHERE execution = ?';
    const [[row]] = await world.db('executions').raw(sql, [toBytes('execution', id)]);
    expect(row.is_kept).to.equal(1);
    await endExecution(world, id, 'CANCELLED');
  });
});

const ALL = { states: [], automationId: '', pageSize: 0, pageToken: '' };
