import { expect } from 'chai';
import { Timeouts } from '#gen/millrace/automations/v1/spec.ts';
import { Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { brokerAddress } from '#platform/broker-address.ts';
import type { Fault } from '#platform/errors.ts';
import { newId, toBytes } from '#platform/id.ts';
import type { Person, World } from '../../tests/world.ts';
import { until } from '../../tests/world.ts';
import { caught, clientOf, draft, publish, startExecutions } from './fixture.test.ts';

const MOST = 100; // that may wait in a workspace: more than the other tests accept

describe('accepting executions', () => {
  let world: World;
  let ada: Person;
  let executions: ReturnType<typeof clientOf>;
  let automationId: string;
  const db = () => world.db('executions');
  const rowsOf = async (table: string, id: string): Promise<Record<string, unknown>[]> =>
    db()(table).where({ [table === 'executions' ? 'id' : 'execution']: toBytes('execution', id) });

  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_MAX_WAITING: String(MOST) });
    ada = world.person();
    executions = clientOf(world, ada);
    automationId = await publish(world, { workspace: ada.workspace });
  });
  after(() => world.stop());

  it('answers what was accepted, which stands in ready and is told by an event', async () => {
    const input = { a: 1, deep: { list: [1, 'x', null, true] } };
    const made = await executions.createExecution({
      execution: draft(automationId, { input, labels: { team: 'blue' }, priority: 2 }),
      requestId: '',
    });
    expect(made).to.deep.include({
      automationId,
      revision: 1,
      state: State.QUEUED,
      input,
      labels: { team: 'blue' },
      priority: 2,
      version: 1,
    });
    expect(made).to.include({ creatorId: ada.user, attemptCount: 0, waitingReason: 'NO_SERVER' });
    expect(Math.abs((made.createTime?.getTime() ?? 0) - Date.now())).to.be.below(60_000);
    expect(await executions.getExecution({ id: made.id })).to.deep.equal(made);
    const [ready] = await rowsOf('ready', made.id);
    expect(ready).to.include({ priority: 2, attempt: 1, losses: 0, limit_key: null });
    expect(ready?.expire_time).to.deep.equal(new Date((made.createTime?.getTime() ?? 0) + 24 * 3_600_000));
  });

  it('tells of what it accepted by one event for a commit, without the inputs', async () => {
    const events: ExecutionEvent[] = [];
    const { js, jsm } = await jetstreamOf(world);
    const info = await jsm.consumers.add(`${world.config.natsPrefix}_EVENTS`, {
      ack_policy: 'none' as never,
      deliver_policy: 'new' as never,
    });
    const consumer = await js.consumers.get(`${world.config.natsPrefix}_EVENTS`, info.name);
    const made = await Promise.all(
      Array.from({ length: 20 }, (_, n) => executions.createExecution({ execution: draft(automationId, { input: { n } }), requestId: '' })),
    );
    const ids = new Set(made.map(({ id }) => id));
    const items = () => events.flatMap((event) => event.items).filter(({ execution }) => ids.has(execution?.id ?? ''));
    await until('the events', async () => {
      for await (const message of await consumer.fetch({ max_messages: 20, expires: 1000 })) {
        if (message.headers?.get('ce-type') === 'execution.created') events.push(ExecutionEvent.decode(message.data));
      }
      return items().length >= made.length;
    });
    expect(new Set(items().map(({ execution }) => execution?.id))).to.deep.equal(ids);
    expect(items().every(({ execution, workspaceId }) => execution?.input === undefined && workspaceId === ada.workspace)).to.equal(true);
    expect(events.length).to.be.below(made.length);
  });

  it('gives each item of a commit its own outcome', async () => {
    const other = await publish(world, { workspace: world.person().workspace });
    const disabled = await publish(world, { workspace: ada.workspace, disabled: true });
    const deleted = await publish(world, { workspace: ada.workspace, deleted: true });
    const unpublished = await publish(world, { workspace: ada.workspace, publishedRevision: 0 });
    const strict = await publish(world, {
      workspace: ada.workspace,
      specs: [{ inputSchema: { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] } }],
    });
    const ask = (id: string, rest = {}) => executions.createExecution({ execution: draft(id, rest), requestId: '' });
    const outcomes = await Promise.all([
      ask(automationId),
      caught(ask(other)),
      caught(ask(newId('automation'))),
      caught(ask(deleted)),
      caught(ask(disabled)),
      caught(ask(unpublished)),
      ask(unpublished, { revision: 1 }),
      caught(ask(automationId, { revision: 7 })),
      caught(ask(strict, { input: { n: 'x' } })),
      caught(ask(strict)),
      ask(strict, { input: { n: 1 } }),
    ]);
    const told = outcomes.map((outcome) => ('reason' in outcome ? outcome.reason : 'accepted'));
    expect(told).to.deep.equal([
      'accepted',
      'RESOURCE_NOT_FOUND',
      'RESOURCE_NOT_FOUND',
      'RESOURCE_NOT_FOUND',
      'AUTOMATION_DISABLED',
      'AUTOMATION_UNPUBLISHED',
      'accepted',
      'RESOURCE_NOT_FOUND',
      'INPUT_INVALID',
      'INPUT_INVALID',
      'accepted',
    ]);
    const placeOf = (outcome: unknown) => (outcome as Fault).violations.map(({ field, description }) => `${field}: ${description}`);
    expect(placeOf(outcomes[8])).to.deep.equal(['execution.input/n: Instance type "string" is invalid. Expected "integer".']);
    expect(placeOf(outcomes[9])).to.deep.equal(['execution.input/n: is required']);
  });

  it('runs the new revision right after it was published', async () => {
    const id = await publish(world, { workspace: ada.workspace });
    expect((await executions.createExecution({ execution: draft(id), requestId: '' })).revision).to.equal(1);
    await publish(world, { id, workspace: ada.workspace, version: 2, publishedRevision: 2, specs: [{}, {}] });
    expect((await executions.createExecution({ execution: draft(id), requestId: '' })).revision).to.equal(2);
    await publish(world, { id, workspace: ada.workspace, version: 1, publishedRevision: 1, disabled: true, specs: [] }); // an older one comes late
    expect((await executions.createExecution({ execution: draft(id), requestId: '' })).revision).to.equal(2);
  });

  describe('by what it remembers', () => {
    // Accepted twice, so that it is remembered, and undisturbed by what the others change.
    const remembered = async (changes: Partial<Parameters<typeof publish>[1]> = {}) => {
      const who = world.person();
      const id = await publish(world, { workspace: who.workspace, ...changes });
      const ask = () => clientOf(world, who).createExecution({ execution: draft(id), requestId: '' });
      for (let n = 0; n < 2; n += 1) expect((await ask()).revision).to.equal(1);
      const change = (rest: Partial<Parameters<typeof publish>[1]>) =>
        publish(world, { id, workspace: who.workspace, version: 2, ...rest });
      return { id, workspace: toBytes('workspace', who.workspace), ask, change };
    };
    const reasonOf = async (ask: () => Promise<unknown>) => (await caught(ask())).reason;

    it('refuses what was disabled or deleted since, and takes it again', async () => {
      const { ask, change } = await remembered();
      await change({ disabled: true });
      expect(await reasonOf(ask)).to.equal('AUTOMATION_DISABLED');
      await change({ version: 3 });
      expect((await ask()).state).to.equal(State.QUEUED);
      await change({ version: 4, deleted: true });
      expect(await reasonOf(ask)).to.equal('RESOURCE_NOT_FOUND');
    });

    it('sees a limit, a queue and a selector that were published since', async () => {
      const limited = await remembered();
      await limited.change({ publishedRevision: 2, specs: [{}, { concurrency: { max: 1 } } as object] });
      expect([(await limited.ask()).waitingReason, (await limited.ask()).waitingReason]).to.deep.equal(['NO_SERVER', 'CONCURRENCY_LIMIT']);
      const queued = await remembered();
      await queued.change({ publishedRevision: 2, specs: [{}, { queue: 'mail' }] });
      const [row] = await rowsOf('ready', (await queued.ask()).id);
      expect(await db()('lanes').where({ lane: row?.lane }).first()).to.include({ queue: 'mail' });
    });

    it('sees a queue that was paused and a workspace that was stopped since', async () => {
      const { ask, workspace } = await remembered();
      await db()('lanes').where({ workspace }).update({ state: 'PAUSED' });
      expect((await ask()).waitingReason).to.equal('QUEUE_PAUSED');
      await db()('lanes').where({ workspace }).update({ state: 'ACTIVE' });
      await ask();
      await ask();
      await db()('holds').insert({ workspace, mode: 'STOPPED', reason: 'inventory', setter: workspace, set_time: new Date() });
      expect(await reasonOf(ask)).to.equal('EXECUTIONS_STOPPED');
    });

    it('is nobody else’s: an automation of another workspace stays unknown', async () => {
      const { id } = await remembered();
      const ask = () => clientOf(world, world.person()).createExecution({ execution: draft(id), requestId: '' });
      expect(await reasonOf(ask)).to.equal('RESOURCE_NOT_FOUND');
    });

    it('takes its time from the database, never ahead of it', async () => {
      const { ask } = await remembered();
      for (let n = 0; n < 5; n += 1) {
        const made = (await ask()).createTime?.getTime() ?? 0;
        const [[{ now }]] = await db().raw('SELECT NOW(6) AS now');
        expect(now.getTime() - made).to.be.within(0, 10_000);
      }
    });
  });

  it('keeps a scheduled one among the timers', async () => {
    const scheduleTime = new Date(Date.now() + 3_600_000);
    const timeouts = { scheduleToStart: { seconds: 60, nanos: 0 }, scheduleToClose: { seconds: 600, nanos: 0 } };
    const id = await publish(world, { workspace: ada.workspace, specs: [{ timeouts: Timeouts.fromPartial(timeouts) }] });
    const made = await executions.createExecution({ execution: draft(id, { scheduleTime }), requestId: '' });
    expect(made).to.deep.include({ state: State.SCHEDULED, scheduleTime, waitingReason: '' });
    const [timer] = await rowsOf('timers', made.id);
    expect(timer).to.deep.include({ kind: 'START', due_time: scheduleTime, expire_time: new Date(scheduleTime.getTime() + 60_000) });
    expect(await rowsOf('ready', made.id)).to.deep.equal([]);
    const past = await executions.createExecution({ execution: draft(id, { scheduleTime: new Date(Date.now() - 1000) }), requestId: '' });
    expect(past.state).to.equal(State.QUEUED);
    const far = draft(id, { scheduleTime: new Date(Date.now() + 400 * 24 * 3_600_000) });
    expect(await caught(executions.createExecution({ execution: far, requestId: '' }))).to.include({ reason: 'FIELD_INVALID' });
  });

  it('keeps large inputs beside the row, and refuses larger ones', async () => {
    const input = { text: '€'.repeat(100_000) };
    const made = await executions.createExecution({ execution: draft(automationId, { input }), requestId: '' });
    expect((await rowsOf('executions', made.id))[0]?.input).to.equal(null);
    expect((await executions.getExecution({ id: made.id })).input).to.deep.equal(input);
    const tooLarge = draft(automationId, { input: { text: '€'.repeat(350_000) } });
    expect(await caught(executions.createExecution({ execution: tooLarge, requestId: '' }))).to.include({ reason: 'FIELD_INVALID' });
  });

  describe('with an idempotency key', () => {
    const ask = (n: number, requestId: string) =>
      executions.createExecution({ execution: draft(automationId, { input: { n } }), requestId });

    it('makes one execution of many equal requests, at once and later', async () => {
      const made = await Promise.all([ask(1, 'k1'), ask(1, 'k1'), ask(1, 'k1'), ask(2, 'k2')]);
      expect(new Set(made.slice(0, 3).map(({ id }) => id)).size).to.equal(1);
      expect(made[3]?.id).to.not.equal(made[0]?.id);
      expect((await ask(1, 'k1')).id).to.equal(made[0]?.id);
      expect(await db()('executions').where({ id: toBytes('execution', made[0]?.id ?? '') })).to.have.length(1);
    });

    it('refuses the key with another body, at once and later', async () => {
      const asks = [() => ask(3, 'k3'), () => ask(4, 'k3')] as const;
      const outcomes = await Promise.allSettled(asks.map((one) => one())); // either may be first
      const made = outcomes.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      expect(made).to.have.length(1);
      const [again, other] = outcomes[0]?.status === 'fulfilled' ? asks : [asks[1], asks[0]];
      expect(await caught(other())).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
      expect((await again()).id).to.equal(made[0]?.id);
      const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
      expect(refused[0]).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
    });

    it('keeps no key of what it refused', async () => {
      const id = await publish(world, { workspace: ada.workspace, disabled: true });
      const again = (n: number) => executions.createExecution({ execution: draft(id, { input: { n } }), requestId: 'k5' });
      expect(await caught(again(1))).to.include({ reason: 'AUTOMATION_DISABLED' });
      await publish(world, { id, workspace: ada.workspace, version: 2 });
      expect((await again(2)).input).to.deep.equal({ n: 2 });
    });

    it('tells keys of two processes apart by the row that was first', async () => {
      // another process made something with the key, and commits while this one is waiting for it
      const key = await keyHashOf(world, ada, 'k6');
      const made = await ask(6, 'k6-made');
      const request = (
        await db()('idempotency')
          .where({ key_hash: await keyHashOf(world, ada, 'k6-made') })
          .first()
      ).request_hash;
      const tx = await db().transaction();
      await tx('idempotency').insert({ key_hash: key, request_hash: request, resource: made.id, create_time: tx.raw('NOW(6)') });
      const [same, other, free] = [ask(6, 'k6'), caught(ask(7, 'k6')), ask(8, 'k8')];
      await until('the insert that waits', async () => {
        const [rows] = await db().raw("SELECT 1 FROM information_schema.processlist WHERE info LIKE 'INSERT INTO idempotency%'");
        return rows.length > 0;
      });
      await tx.commit();
      expect((await same).id).to.equal(made.id);
      expect(await other).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
      expect((await free).input).to.deep.equal({ n: 8 });
    });
  });

  it('says that the outcome is not known when the connection breaks during the commit, and the key finds out', async () => {
    const other = await db().client.acquireRawConnection();
    await other.promise().query('LOCK TABLES outbox WRITE');
    const ask = () => executions.createExecution({ execution: draft(automationId), requestId: 'k9' });
    const waiting = caught(ask());
    await until('the commit that waits', () => killWaiting(world, 'INSERT INTO outbox%'));
    const fault = await waiting;
    expect(fault).to.include({ code: 14 });
    expect(fault.message).to.include('not known');
    await other.promise().query('UNLOCK TABLES');
    await db().client.destroyRawConnection(other);
    expect((await ask()).id).to.equal((await ask()).id);
  });

  it('takes the user that another service acts for', async () => {
    const tasks = world.asService('tasks', ExecutionServiceService, ada);
    const made = await tasks.createExecution({ execution: draft(automationId), requestId: '' });
    expect(made.creatorId).to.equal(ada.user);
    expect((await executions.getExecution({ id: made.id })).id).to.equal(made.id);
  });

  it('refuses what is more than a workspace may have waiting, and says when to come again', async () => {
    const bob = world.person();
    const id = await publish(world, { workspace: bob.workspace });
    const asked = Array.from({ length: MOST + 5 }, () =>
      clientOf(world, bob)
        .createExecution({ execution: draft(id), requestId: '' })
        .catch((error) => error),
    );
    const refused = (await Promise.all(asked)).filter((outcome) => 'reason' in outcome);
    expect(refused).to.have.length(5);
    for (const fault of refused) expect(fault).to.include({ reason: 'QUEUE_FULL', code: 8, retryAfterMs: 1000 });
    await db()('ready')
      .where({
        lane: (
          await db()('lanes')
            .where({ workspace: toBytes('workspace', bob.workspace) })
            .first()
        ).lane,
      })
      .limit(3)
      .delete();
    await until('room in the queue', () =>
      clientOf(world, bob)
        .createExecution({ execution: draft(id), requestId: '' })
        .catch(() => undefined),
    );
  });
});

async function keyHashOf(_: World, { workspace, user }: Person, requestId: string): Promise<Buffer> {
  const { keyHash } = await import('#platform/idempotency.ts');
  const caller = { workspace, user, session: '', scopes: new Set<string>() };
  return keyHash({ caller, method: '/millrace.executions.v1.ExecutionService/CreateExecution', requestId });
}

async function jetstreamOf(world: World) {
  const { connect } = await import('@nats-io/transport-node');
  const { jetstream, jetstreamManager } = await import('@nats-io/jetstream');
  const connection = await connect(brokerAddress(world.config.natsUrl));
  after(() => connection.close());
  return { js: jetstream(connection), jsm: await jetstreamManager(connection) };
}

// Breaks the connection whose statement waits; answers whether there was one.
async function killWaiting(world: World, statement: string): Promise<boolean> {
  const sql = 'SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE ?';
  const [[found]] = await world.db('executions').raw(sql, [statement]);
  if (found) await world.db('executions').raw('KILL CONNECTION ?', [found.id]);
  return found !== undefined;
}
