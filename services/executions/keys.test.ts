import { expect } from 'chai';
import { type Concurrency, Concurrency_Policy as Policy } from '#gen/millrace/automations/v1/spec.ts';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { brokerAddress } from '#platform/broker-address.ts';
import { openPool, type Pool } from '#platform/db.ts';
import { toBytes } from '#platform/id.ts';
import { type Person, until } from '../../tests/world.ts';
import { breaches } from './engine/fixture.test.ts';
import { caught, claim, clientOf, draft, publish, startExecutions } from './fixture.test.ts';
import { crowded, forgetUnused, resizeDrifted } from './limits-system.ts';

describe('concurrency limits over the wire', () => {
  let world: Awaited<ReturnType<typeof startExecutions>>;
  let ada: Person;
  let automationId: string;
  let pool: Pool;
  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_RECONCILE_MS: '3600000' });
    pool = openPool(world.config, `${world.config.databasePrefix}_executions`, 1);
  });
  after(async () => {
    await pool.end();
    await world.stop();
  });
  beforeEach(() => {
    ada = world.person();
  });
  afterEach(async () => expect(await breaches(db())).to.deep.equal({ misplaced: 0, slots: 0 }));

  const db = () => world.db('executions');
  const specOf = (concurrency: Partial<Concurrency>) => ({
    concurrency: { max: 1, key: [], policy: Policy.QUEUE, maxQueued: 0, ...concurrency },
  });
  async function automation(concurrency: Partial<Concurrency>): Promise<void> {
    automationId = await publish(world, { workspace: ada.workspace, specs: [specOf(concurrency)] });
  }
  const create = (rest: Partial<Execution> = {}, requestId = '') =>
    clientOf(world, ada).createExecution({ execution: draft(automationId, rest), requestId });
  const get = (id: string) => clientOf(world, ada).getExecution({ id });
  const place = async (id: string): Promise<string> => {
    for (const table of ['ready', 'waiting', 'timers', 'running'])
      if (
        await db()(table)
          .where({ execution: toBytes('execution', id) })
          .first()
      )
        return table;
    return '';
  };
  const places = (all: readonly Execution[]) => Promise.all(all.map(({ id }) => place(id)));

  it('QUEUE: those with the same values in their input wait for each other, and say so', async () => {
    await automation({ key: ['/customer/id'] });
    const of = (id: number, n: number) => create({ input: { customer: { id }, n } });
    const all = [await of(1, 1), await of(1, 2), await of(2, 3), await create()];
    expect(await places(all)).to.deep.equal(['ready', 'waiting', 'ready', 'ready']);
    expect(all.map(({ waitingReason }) => waitingReason)).to.deep.equal(['NO_SERVER', 'CONCURRENCY_LIMIT', 'NO_SERVER', 'NO_SERVER']);
    const { causes } = await world.as(ada, ControlServiceService).explainExecution({ id: all[1]?.id ?? '' });
    expect(causes[0]?.limit).to.deep.equal({
      key: `${automationId} [["/customer/id",1]]`,
      max: 1,
      used: 1,
      holderIds: [all[0]?.id],
    });
    await clientOf(world, ada).cancelExecution({ id: all[0]?.id ?? '', reason: '' });
    expect(await place(all[1]?.id ?? '')).to.equal('ready');
  });

  it('a cap: beyond it nothing is accepted, nor its key kept, and it is said when to come again', async () => {
    await automation({ maxQueued: 2 });
    for (let n = 0; n < 3; n += 1) await create();
    const refused = await caught(create({}, 'once'));
    expect(refused).to.include({ reason: 'KEY_QUEUE_FULL', code: 8, retryAfterMs: 1000 });
    const rows = await db()('executions').where({ automation: toBytes('automation', automationId) });
    expect(rows).to.have.length(3);
    const [first] = await db()('ready').where({ limit_key: `${automationId} []` });
    const id = (await clientOf(world, ada).listExecutions({ ...ALL, automationId })).executions.find(({ id: one }) =>
      toBytes('execution', one).equals(first.execution),
    )?.id;
    await clientOf(world, ada).cancelExecution({ id: id ?? '', reason: '' });
    expect((await create({}, 'once')).state).to.equal(State.QUEUED);
    const together = await Promise.allSettled([create({}, 'x'), create({}, 'y'), create()]);
    expect(together.map(({ status }) => status)).to.deep.equal(['rejected', 'rejected', 'rejected']);
  });

  it('DROP_NEW: what finds no place is skipped, told as created and as ended', async () => {
    await automation({ policy: Policy.DROP_NEW });
    const [first, second] = [await create(), await create()];
    expect([first.state, second.state]).to.deep.equal([State.QUEUED, State.SKIPPED]);
    expect(second.error).to.include({ type: 'ConcurrencyLimit' });
    expect(await get(second.id)).to.deep.include({ state: State.SKIPPED, version: 2, error: second.error, endTime: second.endTime });
    const client = clientOf(world, ada);
    const waited = await client.runAndWait({ execution: draft(automationId), wait: { seconds: 5, nanos: 0 }, requestId: '' });
    expect(waited.state).to.equal(State.SKIPPED);
    const { causes } = await world.as(ada, ControlServiceService).explainExecution({ id: second.id });
    expect(causes[0]?.message).to.equal('It was never started (ConcurrencyLimit: Others held all places of its concurrency key.).');
    await claim(world, first.id);
    const again = await client.retryExecution({ id: second.id, requestId: '' });
    expect(again.state).to.equal(State.SKIPPED);
  });

  it('CANCEL_OLD: the newest run, the older ones make room', async () => {
    await automation({ policy: Policy.CANCEL_OLD, max: 2 });
    const [first, second] = [await create(), await create()];
    await claim(world, first.id);
    const third = await create();
    await until('the oldest to be asked to stop', async () => (await get(first.id)).state === State.CANCELLING);
    expect((await get(second.id)).state).to.equal(State.QUEUED);
    const fourth = await create();
    await until('the next to go', async () => (await get(second.id)).state === State.CANCELLED);
    expect(await places([third, fourth])).to.deep.equal(['ready', 'waiting']);
    expect((await db()('executions').where({ id: toBytes('execution', second.id) }).first()).cancel_reason).to.include('newer'); // biome-ignore format: a line
    const connection = await pool.getConnection();
    expect(await crowded(connection)).to.deep.equal([`${automationId} []`]);
    connection.release();
  });

  it('what starts later takes its place when it is due', async () => {
    await automation({ policy: Policy.DROP_NEW });
    const later = await create({ scheduleTime: new Date(Date.now() + 3_600_000) });
    expect([later.state, (await create()).state]).to.deep.equal([State.SCHEDULED, State.QUEUED]);
  });

  it('a newly published size holds at once for those that wait, and another key for those that come', async () => {
    await automation({});
    const all = [await create(), await create(), await create()];
    const rest = { id: automationId, workspace: ada.workspace };
    await publish(world, { ...rest, version: 2, publishedRevision: 2, specs: [specOf({}), specOf({ max: 2 })] });
    expect(await places(all)).to.deep.equal(['ready', 'ready', 'waiting']);
    await publish(world, { ...rest, version: 3, publishedRevision: 3, specs: [specOf({}), specOf({ max: 2 }), { source: 'pass' }] });
    expect(await place((await create()).id)).to.equal('ready');
    expect(await places(all)).to.deep.equal(['ready', 'ready', 'waiting']);
    for (const { id } of all.slice(0, 2)) await clientOf(world, ada).cancelExecution({ id, reason: '' });
    expect(await place(all[2]?.id ?? '')).to.equal('ready');
  });

  it('are put right when they drifted, and go when nobody uses them', async () => {
    await automation({ key: ['/n'] });
    const [used, unused, timed] = [
      await create({ input: { n: 1 } }),
      await create({ input: { n: 2 } }),
      await create({ input: { n: 3 }, scheduleTime: new Date(Date.now() + 3_600_000) }),
    ];
    const waits = await create({ input: { n: 1 } });
    await clientOf(world, ada).cancelExecution({ id: unused.id, reason: '' });
    const rows = () =>
      db()('limits')
        .where({ automation: toBytes('automation', automationId) })
        .orderBy('limit_key');
    await rows().update({ policy: 'DROP_NEW' });
    await db()('automations')
      .where({ id: toBytes('automation', automationId) })
      .update({ concurrency: JSON.stringify({ max: 2, key: ['/n'], policy: 'QUEUE', maxQueued: 0 }) });
    const connection = await pool.getConnection();
    expect(await resizeDrifted(connection)).to.have.property('size', 1);
    expect(await resizeDrifted(connection)).to.have.property('size', 0);
    expect(await places([used, waits])).to.deep.equal(['ready', 'ready']);
    expect(await forgetUnused(connection)).to.be.at.least(1);
    connection.release();
    expect((await rows()).map(({ limit_key, max, policy }) => ({ limit_key, max, policy }))).to.deep.equal(
      [1, 3].map((n) => ({ limit_key: `${automationId} [["/n",${n}]]`, max: 2, policy: 'QUEUE' })),
    );
    expect((await get(timed.id)).state).to.equal(State.SCHEDULED);
  });

  it('tell of what they skip in the order of its life', async () => {
    await automation({ policy: Policy.DROP_NEW, max: 1 });
    await create();
    const seen: string[] = [];
    const { connect } = await import('@nats-io/transport-node');
    const broker = await connect(brokerAddress(world.env.MILLRACE_NATS_URL ?? ''));
    const prefix = `${world.env.MILLRACE_NATS_PREFIX}.events.executions.`;
    const subscription = broker.subscribe(`${prefix}>`, {
      callback: (_, message) => {
        const type = message.headers?.get('ce-type');
        for (const { execution } of ExecutionEvent.decode(message.data).items)
          seen.push(`${execution?.id} ${type} ${execution?.version} ${execution?.state}`);
        expect(message.headers?.get('ce-specversion')).to.equal('1.0');
        expect(message.headers?.get('ce-source')).to.equal('millrace/executions');
        expect(message.headers?.get('ce-dataschema')).to.equal('millrace.executions.v1.ExecutionEvent');
        for (const name of ['ce-id', 'ce-subject', 'ce-time']) expect(message.headers?.get(name), name).to.not.equal('');
      },
    });
    await broker.flush();
    const { id } = await create();
    const wanted = [`${id} execution.created 1 ${State.QUEUED}`, `${id} execution.ended 2 ${State.SKIPPED}`];
    await until('both events', () => wanted.every((one) => seen.includes(one)));
    subscription.unsubscribe();
    await broker.close();
  });
});

const ALL = { states: [], automationId: '', pageSize: 0, pageToken: '' };
