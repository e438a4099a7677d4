import { expect } from 'chai';
import { AutomationSpec_Network } from '#gen/millrace/automations/v1/spec.ts';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { type Cause, Cause_Reason as Reason } from '#gen/millrace/executions/v1/explanation.ts';
import { fromBytes, newBytes, newId, toBytes } from '#platform/id.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { caught, claim, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';

const NAMES = new Map<number, string>(Object.entries(Reason).map(([name, value]) => [value, name]));

describe('an execution explained', () => {
  let world: World;
  let ada: Person;
  let automationId: string;
  before(async () => {
    world = await startExecutions();
  });
  after(() => world.stop());
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace });
    await db()('servers').delete();
    await db()('dispatchers').delete();
    await db()('running').delete();
  });

  const db = () => world.db('executions');
  const key = (id: string) => toBytes('execution', id);
  const create = async (rest: Partial<Execution> = {}) =>
    (await clientOf(world, ada).createExecution({ execution: draft(automationId, rest), requestId: '' })).id;
  const explain = (id: string) => world.as(ada, ControlServiceService).explainExecution({ id });
  const reasons = async (id: string) => (await explain(id)).causes.map(({ reason }) => NAMES.get(reason));
  async function server(overrides: Record<string, unknown> = {}): Promise<Buffer> {
    const id = newBytes();
    const now = db().raw('NOW(6)');
    const row = { id, endpoint: '127.0.0.1:7000', labels: '{}', slots: 2, tier: 2, minimum_tier: 1, protocol: 1, draining: false };
    const owned = { state: 'LIVE', register_time: now, seen_time: now, owner: null, owner_epoch: 1, lease_until: now };
    await db()('servers').insert({ ...row, ...owned, ...overrides });
    return id;
  }
  const dispatcher = () => db()('dispatchers').insert({ id: newBytes(), lease_until: db().raw('NOW(6) + INTERVAL 1 HOUR') });
  const waitingReason = async (id: string) => (await clientOf(world, ada).getExecution({ id })).waitingReason;

  it('NO_SERVER: nothing has announced itself, or all drain', async () => {
    const id = await create();
    const explained = await explain(id);
    expect(explained).to.deep.include({ executionId: id, state: State.QUEUED, position: 1 });
    expect(explained.expireTime?.getTime()).to.be.above(Date.now());
    expect(explained.causes).to.have.length(1);
    expect(explained.causes[0]).to.include({ reason: Reason.NO_SERVER, remedy: 'Start an automation server.' });
    await server({ draining: true });
    expect(await reasons(id)).to.deep.equal(['NO_SERVER']);
  });

  it('SANDBOX_UNAVAILABLE: there are servers, below their tier', async () => {
    await server({ tier: 0, minimum_tier: 1 });
    expect(await reasons(await create())).to.deep.equal(['SANDBOX_UNAVAILABLE']);
  });

  it('NO_DISPATCHER: nobody hands work to the servers, as the execution itself says', async () => {
    await server();
    const id = await create();
    expect(await reasons(id)).to.deep.equal(['NO_DISPATCHER']);
    await until('the same word in the execution', async () => (await waitingReason(id)) === 'NO_DISPATCHER');
  });

  it('SERVERS_BUSY: every slot is taken', async () => {
    const id = await server({ slots: 1 });
    await dispatcher();
    const [first, second] = [await create(), await create()];
    await claim(world, first, { server: id });
    expect(await reasons(second)).to.deep.equal(['SERVERS_BUSY']);
  });

  it('TURN: nothing is in the way but those before it, by priority and age', async () => {
    await server();
    await dispatcher();
    const ids = [await create(), await create({ priority: 1 }), await create({ priority: 9 })];
    expect(await reasons(ids[0] as string)).to.deep.equal(['TURN']);
    expect(await Promise.all(ids.map(async (id) => (await explain(id)).position))).to.deep.equal([2, 1, 3]);
    const [cause] = (await explain(ids[0] as string)).causes;
    expect(cause?.message).to.equal('It waits for 1 other.');
    await until('no word in the execution', async () => (await waitingReason(ids[0] as string)) === '');
  });

  it('QUEUE_PAUSED: the queue is, and what else is in the way is told too', async () => {
    const id = await create();
    const { lane } = await db()('executions')
      .select('lane')
      .where({ id: key(id) })
      .first();
    await db()('lanes').where({ lane }).update({ state: 'PAUSED' });
    expect(await waitingReason(id)).to.equal('QUEUE_PAUSED');
    expect(await reasons(id)).to.deep.equal(['QUEUE_PAUSED', 'NO_SERVER']);
  });

  it('CONCURRENCY_LIMIT: others hold the slots of its key, and they are named', async () => {
    const [holder, first, second] = [await create(), await create(), await create()];
    const limit_key = `k${newId('task')}`;
    await db()('limits').insert({ limit_key, max: 1, used: 1 });
    await db()('slots').insert({ limit_key, execution: key(holder) });
    for (const [seq, id] of [first, second].entries()) {
      const { lane, priority, attempt, losses, expire_time } = await db()('ready')
        .where({ execution: key(id) })
        .first();
      await db()('ready')
        .where({ execution: key(id) })
        .delete();
      await db()('executions')
        .where({ id: key(id) })
        .update({ limit_key });
      await db()('waiting').insert({ limit_key, seq, execution: key(id), lane, priority, attempt, losses, expire_time });
    }
    const { causes, position } = await explain(second);
    expect(position).to.equal(2);
    expect(causes[0]).to.deep.include({
      reason: Reason.CONCURRENCY_LIMIT,
      limit: { key: limit_key, max: 1, used: 1, holderIds: [holder] },
    });
    expect(await waitingReason(second)).to.equal('CONCURRENCY_LIMIT');
  });

  it('SCHEDULED and BACKOFF: until when', async () => {
    const scheduleTime = new Date(Date.now() + 3_600_000);
    const scheduled = await create({ scheduleTime });
    const { causes, state, position } = await explain(scheduled);
    expect({ state, position }).to.deep.equal({ state: State.SCHEDULED, position: undefined });
    expect(causes).to.have.length(1);
    expect(causes[0]).to.deep.include({ reason: Reason.SCHEDULED, untilTime: scheduleTime });
    await db()('timers')
      .where({ execution: key(scheduled) })
      .update({ kind: 'RETRY' });
    const [cause] = (await explain(scheduled)).causes;
    expect(cause).to.deep.include({ reason: Reason.BACKOFF, untilTime: scheduleTime });
  });

  it('PAUSED: by a person', async () => {
    const id = await create({ scheduleTime: new Date(Date.now() + 3_600_000) });
    await db()('timers')
      .where({ execution: key(id) })
      .update({ kind: 'PAUSE' });
    expect(await reasons(id)).to.deep.equal(['PAUSED']);
  });

  it('STARTING, RUNNING and CANCELLING: where', async () => {
    const id = await create();
    const serverKey = newBytes();
    await claim(world, id, { server: serverKey, started: false });
    const told = async () => (await explain(id)).causes[0];
    expect(await told()).to.include({ reason: Reason.STARTING, serverId: fromBytes('server', serverKey) });
    await db()('running')
      .where({ execution: key(id) })
      .update({ started: true });
    expect(await told()).to.include({ reason: Reason.RUNNING, serverId: fromBytes('server', serverKey) });
    expect((await told())?.message).to.equal(`Attempt 1 runs on ${fromBytes('server', serverKey)}.`);
    await db()('running')
      .where({ execution: key(id) })
      .update({ state: 'CANCELLING' });
    expect(await told()).to.include({ reason: Reason.CANCELLING });
  });

  it('AUTOMATIONS_UNAVAILABLE: its values and where it may connect to cannot be had, while it has not started', async () => {
    const specs = [{ secrets: ['token'], network: AutomationSpec_Network.EGRESS }];
    const away = await startExecutions({ MILLRACE_AUTOMATIONS_URL: '127.0.0.1:1' }); // where nobody answers
    const there = await startWorld({ targets: ['executions', 'automations'], env: { MILLRACE_RUNNER_URL: '127.0.0.1:1' } });
    const told = async (where: World, overrides?: Record<string, unknown>) => {
      const person = where.person();
      const execution = draft(await publish(where, { workspace: person.workspace, specs }));
      const { id } = await clientOf(where, person).createExecution({ execution, requestId: '' });
      if (overrides) await claim(where, id, overrides);
      return (await where.as(person, ControlServiceService).explainExecution({ id })).causes;
    };
    const names = (causes: readonly Cause[]) => causes.map(({ reason }) => NAMES.get(reason));
    try {
      const causes = await told(away);
      expect(names(causes)).to.deep.equal(['AUTOMATIONS_UNAVAILABLE', 'NO_SERVER']);
      expect(causes[0]?.message).to.match(/its secrets and variables, where it may connect to\.$/);
      expect(names(await told(away, { started: false }))).to.deep.equal(['AUTOMATIONS_UNAVAILABLE', 'STARTING']);
      expect(names(await told(away, { started: true }))).to.deep.equal(['RUNNING']);
      expect(names(await told(there)), 'where automations answers').to.deep.equal(['NO_SERVER']);
      expect(names(await told(world)), 'where nobody can be asked').to.deep.equal(['NO_SERVER']);
    } finally {
      await away.stop();
      await there.stop();
    }
  });

  it('ENDED: how and why', async () => {
    const [failed, cancelled, done] = [await create(), await create(), await create()];
    const error = JSON.stringify({ type: 'ValueError', message: 'no', traceback: '', retryable: false });
    await endExecution(world, failed, 'FAILED', { error, attempt_count: 3 });
    await endExecution(world, cancelled, 'CANCELLED', { cancel_reason: 'enough' });
    await endExecution(world, done, 'SUCCEEDED');
    const messages = await Promise.all([failed, cancelled, done].map(async (id) => (await explain(id)).causes.map((one) => one.message)));
    expect(messages).to.deep.equal([['It failed after 3 attempts (ValueError: no).'], ['It was cancelled: enough.'], ['It succeeded.']]);
    expect((await explain(done)).causes[0]).to.include({ reason: Reason.ENDED, remedy: '' });
  });

  it('is told to those who may read, in their workspace', async () => {
    const id = await create();
    const ask = (person: Person) => world.as(person, ControlServiceService).explainExecution({ id });
    expect(await caught(ask(world.person()))).to.include({ reason: 'RESOURCE_NOT_FOUND' });
    expect(await caught(ask({ ...ada, scopes: ['tasks.read'] }))).to.include({ reason: 'PERMISSION_MISSING' });
  });
});
