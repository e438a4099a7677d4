import { expect } from 'chai';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { Cause_Reason as Reason } from '#gen/millrace/executions/v1/explanation.ts';
import { MaintenanceServiceService, Maintenance_Mode as Mode } from '#gen/millrace/executions/v1/maintenance_service.ts';
import { Queue, Queue_State as QueueState } from '#gen/millrace/executions/v1/queue.ts';
import { QueueServiceService } from '#gen/millrace/executions/v1/queue_service.ts';
import { toBytes } from '#platform/id.ts';
import type { Person } from '../../tests/world.ts';
import { caught, claim, clientOf, draft, publish, startExecutions } from './fixture.test.ts';

describe('queues and halts over the wire', () => {
  let world: Awaited<ReturnType<typeof startExecutions>>;
  let ada: Person;
  let automationId: string;
  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_MAX_WAITING: '12' });
  });
  after(() => world.stop());
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace, specs: [{ queue: 'nightly' }] });
  });
  afterEach(() => db()('holds').delete());

  const db = () => world.db('executions');
  const queues = (person = ada) => world.as(person, QueueServiceService);
  const create = (rest: Partial<Execution> = {}, id = automationId) =>
    clientOf(world, ada).createExecution({ execution: draft(id, rest), requestId: '' });
  const later = () => new Date(Date.now() + 3_600_000);
  const first = async (id: string) => (await world.as(ada, ControlServiceService).explainExecution({ id })).causes[0];
  const update = (queue: Partial<Queue>, ...updateMask: string[]) => queues().updateQueue({ queue: Queue.fromPartial(queue), updateMask });

  it('are made when they are first used, and tell what waits and runs', async () => {
    const other = await publish(world, { workspace: ada.workspace });
    const [running] = [await create(), await create(), await create({ scheduleTime: later() }), await create({}, other)];
    await claim(world, running.id);
    const { queues: found } = await queues().listQueues({});
    expect(found.map(({ name }) => name)).to.deep.equal(['default', 'nightly']);
    const { oldestTime, ...nightly } = await queues().getQueue({ name: 'nightly' });
    expect(nightly).to.deep.equal({
      name: 'nightly',
      state: QueueState.ACTIVE,
      weight: 1,
      maxRunning: undefined,
      ratePerSecond: undefined,
      queuedCount: 1,
      timedCount: 1,
      runningCount: 1,
      selector: {},
    });
    expect(Math.abs((oldestTime?.getTime() ?? 0) - Date.now())).to.be.below(60_000);
    expect(found[1]).to.deep.include({ name: 'nightly', queuedCount: 1 });
    expect(await caught(queues().getQueue({ name: 'none' }))).to.include({ reason: 'RESOURCE_NOT_FOUND' });
    expect(await caught(queues(world.person()).getQueue({ name: 'nightly' }))).to.include({ reason: 'RESOURCE_NOT_FOUND' });
  });

  it('can be changed before they are used, field by field', async () => {
    expect(await update({ name: 'new', weight: 3, maxRunning: 4, ratePerSecond: 2.5 })).to.include({
      name: 'new',
      weight: 3,
      maxRunning: 4,
      ratePerSecond: 2.5,
    });
    expect(await update({ name: 'new' }, 'max_running', 'weight')).to.include({ maxRunning: undefined, weight: 1, ratePerSecond: 2.5 });
    expect(await caught(update({ name: 'new' }))).to.include({ reason: 'NO_FIELDS' });
    expect(await caught(update({ weight: 3 }))).to.include({ reason: 'FIELD_INVALID' });
    expect(await caught(queues().pauseQueue({ name: 'No Name' }))).to.include({ reason: 'FIELD_INVALID' });
  });

  it('are paused, resumed and drained', async () => {
    const before = await create();
    expect((await queues().pauseQueue({ name: 'nightly' })).state).to.equal(QueueState.PAUSED);
    expect(await create()).to.include({ state: State.QUEUED, waitingReason: 'QUEUE_PAUSED' });
    expect(await first(before.id)).to.include({ reason: Reason.QUEUE_PAUSED });
    expect((await queues().drainQueue({ name: 'nightly' })).state).to.equal(QueueState.DRAINING);
    expect(await caught(create())).to.include({ reason: 'QUEUE_DRAINING' });
    expect((await create({}, await publish(world, { workspace: ada.workspace }))).state).to.equal(State.QUEUED);
    expect((await queues().resumeQueue({ name: 'nightly' })).state).to.equal(QueueState.ACTIVE);
    expect((await create()).state).to.equal(State.QUEUED);
  });

  it('are emptied, some in each call, of what waits for its turn', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 5; n += 1) ids.push((await create()).id);
    const timed = await create({ scheduleTime: later() });
    const purge = () => queues().purgeQueue({ name: 'nightly', reason: 'wrong list', pageSize: 3 });
    expect(await purge()).to.deep.equal({ cancelledCount: 3, hasMore: true });
    expect(await purge()).to.deep.equal({ cancelledCount: 2, hasMore: false });
    expect(await purge()).to.deep.equal({ cancelledCount: 0, hasMore: false });
    const states = await db()('executions').whereIn('id', ids.map((id) => toBytes('execution', id))).pluck('state'); // biome-ignore format: a line
    expect(new Set(states)).to.deep.equal(new Set(['CANCELLED']));
    expect((await clientOf(world, ada).getExecution({ id: timed.id })).state).to.equal(State.SCHEDULED);
  });

  it('explain that as many run as may, and that the rate is used up', async () => {
    const [running, waits] = [await create(), await create()];
    await claim(world, running.id);
    await update({ name: 'nightly', maxRunning: 1 });
    expect(await first(waits.id)).to.include({
      reason: Reason.QUEUE_LIMIT,
      message: '1 of 1 executions of the queue nightly run already.',
    });
    await update({ name: 'nightly', ratePerSecond: 0.01 }, 'max_running', 'rate_per_second');
    await db()('lanes')
      .where({ queue: 'nightly' })
      .update({ tokens: 0, token_time: db().raw('NOW(6)') });
    const cause = await first(waits.id);
    expect(cause).to.include({ reason: Reason.QUEUE_RATE });
    expect((cause?.untilTime?.getTime() ?? 0) - Date.now()).to.be.within(60_000, 110_000);
  });

  it('count against the quota of the workspace together', async () => {
    const other = await publish(world, { workspace: ada.workspace });
    for (let n = 0; n < 6; n += 1) for (const id of [automationId, other]) await create({}, id);
    expect(await caught(create())).to.include({ reason: 'QUEUE_FULL' });
  });

  it('are halted: accepted and not started, or refused', async () => {
    const halts = world.as(ada, MaintenanceServiceService);
    expect(await halts.getMaintenance({})).to.deep.include({ mode: Mode.NORMAL, setterId: '' });
    const set = await halts.setMaintenance({ mode: Mode.MAINTENANCE, reason: 'the database moves' });
    expect(set).to.deep.include({ mode: Mode.MAINTENANCE, reason: 'the database moves', setterId: ada.user });
    const made = await create();
    expect(made.waitingReason).to.equal('MAINTENANCE');
    const waits = await clientOf(world, ada).getExecution({ id: made.id });
    expect(waits).to.include({ state: State.QUEUED, waitingReason: 'MAINTENANCE' });
    expect(await first(waits.id)).to.include({
      reason: Reason.MAINTENANCE,
      message: 'Executions are accepted and not started in the workspace: the database moves.',
    });
    await halts.setMaintenance({ mode: Mode.STOPPED, reason: 'stop' });
    expect(await caught(create())).to.include({ reason: 'EXECUTIONS_STOPPED', message: 'executions are stopped: stop' });
    const eve = world.person();
    const hers = await publish(world, { workspace: eve.workspace });
    const herOwn = () => clientOf(world, eve).createExecution({ execution: draft(hers), requestId: '' });
    expect((await herOwn()).state).to.equal(State.QUEUED);
    expect((await halts.setMaintenance({ mode: Mode.NORMAL, reason: '' })).mode).to.equal(Mode.NORMAL);
    expect((await create()).waitingReason).to.equal('NO_SERVER');
    const platform = world.as({ ...ada, scopes: ['platform.manage'] }, MaintenanceServiceService);
    await platform.setPlatformMaintenance({ mode: Mode.STOPPED, reason: 'an attack' });
    expect(await caught(herOwn())).to.include({ reason: 'EXECUTIONS_STOPPED' });
    expect((await first(waits.id))?.message).to.equal('Executions are stopped everywhere: an attack.');
    expect((await halts.getMaintenance({})).mode).to.equal(Mode.NORMAL);
    expect((await platform.setPlatformMaintenance({ mode: Mode.NORMAL, reason: '' })).mode).to.equal(Mode.NORMAL);
  });

  it('are for those who manage them', async () => {
    const user = { ...ada, scopes: ['executions.run', 'executions.read'] };
    expect((await queues(user).listQueues({})).queues).to.deep.equal([]);
    expect(await caught(queues(user).pauseQueue({ name: 'nightly' }))).to.include({ reason: 'PERMISSION_MISSING' });
    const halts = world.as(user, MaintenanceServiceService);
    expect(await caught(halts.setMaintenance({ mode: Mode.STOPPED, reason: '' }))).to.include({ reason: 'PERMISSION_MISSING' });
    const admin = world.as(ada, MaintenanceServiceService);
    expect(await caught(admin.setPlatformMaintenance({ mode: Mode.STOPPED, reason: '' }))).to.include({ reason: 'PERMISSION_MISSING' });
  });
});
