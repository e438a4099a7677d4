import { expect } from 'chai';
import { ControlServiceService, ExecutionFilter } from '#gen/millrace/executions/v1/control_service.ts';
import { DeadLetter_Kind as Kind, DeadLetter_State as State } from '#gen/millrace/executions/v1/dead_letter.ts';
import { DeadLetterFilter, DeadLetterServiceService } from '#gen/millrace/executions/v1/dead_letter_service.ts';
import { Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { PlatformDeadLetterServiceService } from '#gen/millrace/executions/v1/platform_dead_letter_service.ts';
import { bury } from '#platform/consumer.ts';
import { newId, toBytes } from '#platform/id.ts';
import type { Person, World } from '../../tests/world.ts';
import { endWaiting } from './engine/leave.ts';
import { caught, clientOf, draft, publish, startExecutions } from './fixture.test.ts';

const filterOf = (filter: Partial<DeadLetterFilter> = {}) => DeadLetterFilter.fromPartial(filter as object);

describe('dead letters', function () {
  this.timeout(60_000);
  let world: World;
  before(async () => {
    world = await startExecutions({ MILLRACE_TASKS_URL: '127.0.0.1:1' }); // where nobody answers
  });
  after(() => world.stop());

  const lettersOf = (person: Person) => world.as(person, DeadLetterServiceService);
  const list = (person: Person, filter: Partial<DeadLetterFilter> = {}, pageSize = 0, pageToken = '') =>
    lettersOf(person).listDeadLetters({ filter: filterOf(filter), pageSize, pageToken });
  const idsOf = ({ deadLetters }: { deadLetters: { id: string }[] }) => deadLetters.map(({ id }) => id);

  async function somebody(): Promise<{ person: Person; automationId: string }> {
    const person = world.person();
    return { person, automationId: await publish(world, { workspace: person.workspace }) };
  }

  // An execution whose time to start is over, ended as the engine does.
  async function givenUp(
    { person, automationId }: { person: Person; automationId: string },
    to: 'TIMED_OUT' | 'CANCELLED' = 'TIMED_OUT',
  ): Promise<string> {
    const { id } = await clientOf(world, person).createExecution({ execution: draft(automationId, { input: { n: 1 } }), requestId: '' });
    const db = world.db('executions');
    const execution = toBytes('execution', id);
    await db('ready')
      .where({ execution })
      .update({ expire_time: db.raw('NOW(6) - INTERVAL 1 SECOND') });
    const error = { type: 'ScheduleToStartTimeout', message: 'too late', traceback: '', retryable: false };
    await db.transaction((tx) => endWaiting({ query: (sql) => tx.raw(sql) }, [{ execution, to, error }]));
    return id;
  }

  async function deadEvent(workspace: string): Promise<string> {
    const event = {
      id: newId('event'),
      type: 'task.created',
      subject: newId('task'),
      workspace,
      version: 1,
      schema: 'x',
      time: new Date(),
      data: Buffer.from('x'),
    };
    const consumer = { name: 'executions-test', area: 'tasks', db: world.db('executions'), handle: async () => undefined };
    await bury(consumer, event, 10, new Error('broken'));
    return `executions.executions-test.${event.id}`;
  }

  it('are the executions that were given up and the events of the workspace, page by page', async () => {
    const one = await somebody();
    const other = { ...one, automationId: await publish(world, { workspace: one.person.workspace }) };
    const executions = [await givenUp(one), await givenUp(other), await givenUp(one)].toReversed();
    await givenUp(one, 'CANCELLED');
    const event = await deadEvent(one.person.workspace);
    await deadEvent(newId('workspace'));
    const all = await list(one.person);
    expect(idsOf(all)).to.deep.equal([...executions, event]);
    expect(all.nextPageToken).to.equal('');
    expect(all.unreachableAreas, 'but the rest is shown').to.deep.equal(['tasks']);
    expect(all.deadLetters[0]).to.deep.include({
      kind: Kind.EXECUTION,
      state: State.DEAD,
      area: 'executions',
      automationId: one.automationId,
      attemptCount: 0,
    });
    expect(all.deadLetters[0]?.error?.type).to.equal('ScheduleToStartTimeout');
    expect(all.deadLetters[3]).to.deep.include({ kind: Kind.EVENT, consumer: 'executions-test', attemptCount: 10 });

    const pages: string[][] = [];
    for (let token = ''; ; ) {
      const page = await list(one.person, {}, 2, token);
      pages.push(idsOf(page));
      token = page.nextPageToken;
      if (!token) break;
    }
    expect(pages.filter((page) => page.length > 0)).to.deep.equal([executions.slice(0, 2), [executions[2], event]]); // the last one may be empty
    expect(idsOf(await list(one.person, { kind: Kind.EVENT }))).to.deep.equal([event]);
    expect(await list(one.person, { kind: Kind.EXECUTION })).to.deep.include({ unreachableAreas: [] });
    expect(idsOf(await list(one.person, { kind: Kind.EXECUTION, automationId: other.automationId }))).to.deep.equal([executions[1]]);
    expect(idsOf(await list(one.person, { createTimeTo: new Date('2026-01-01') }))).to.deep.equal([]);
    expect(idsOf(await list(world.person())), 'of somebody else').to.deep.equal([]);
    const whole = await lettersOf(one.person).getDeadLetter({ id: executions[0] as string });
    expect(whole.execution?.input).to.deep.equal({ n: 1 });
    const viewer = world.as({ ...one.person, scopes: ['executions.read'] }, DeadLetterServiceService);
    expect((await caught(viewer.getDeadLetter({ id: event }))).reason).to.equal('PERMISSION_MISSING');
  });

  it('are redriven once, with the same input or another', async () => {
    const one = await somebody();
    const [id, second] = [await givenUp(one), await givenUp(one)];
    const client = lettersOf(one.person);
    const admins = [one.person, ...[1, 2].map(() => world.person({ workspace: one.person.workspace }))];
    const redrive = (admin: Person) => lettersOf(admin).redriveDeadLetter({ id });
    const answers = await Promise.all(admins.map((admin) => redrive(admin).catch(({ reason }) => reason as string)));
    const done = answers.filter((answer) => typeof answer !== 'string');
    expect(answers.filter((answer) => typeof answer === 'string' && answer !== 'CONFLICT')).to.deep.equal([]);
    const made = await clientOf(world, one.person).listExecutions({ states: [Execution_State.QUEUED], automationId: '', createTimeFrom: undefined, createTimeTo: undefined, pageSize: 0, pageToken: '' }); // biome-ignore format: a row
    expect(made.executions).to.have.length(1);
    for (const letter of done) expect(letter).to.deep.include({ state: State.REDRIVEN, redrivenAs: made.executions[0]?.id });
    expect((await client.redriveDeadLetter({ id })).redrivenAs, 'and again').to.equal(made.executions[0]?.id);
    const { redrivenAs } = await client.redriveDeadLetter({ id: second, input: { n: 2 } });
    expect(await clientOf(world, one.person).getExecution({ id: redrivenAs })).to.deep.include({ input: { n: 2 }, retryOf: second });
    expect(idsOf(await list(one.person))).to.deep.equal([]);
    expect(idsOf(await list(one.person, { state: State.REDRIVEN }))).to.deep.equal([second, id]);
    expect((await caught(client.discardDeadLetter({ id }))).reason).to.equal('DEAD_LETTER_SETTLED');
  });

  it('stay when they cannot be redriven, and go on where a redrive was cut off', async () => {
    const one = await somebody();
    const id = await givenUp(one);
    await publish(world, { id: one.automationId, workspace: one.person.workspace, version: 2, disabled: true });
    expect((await caught(lettersOf(one.person).redriveDeadLetter({ id }))).reason).to.equal('AUTOMATION_DISABLED');
    expect(idsOf(await list(one.person))).to.deep.equal([id]);
    await publish(world, { id: one.automationId, workspace: one.person.workspace, version: 3 });
    const made = await clientOf(world, one.person).retryExecution({ id, requestId: '' });
    const db = world.db('executions');
    const cutOff = { redriven_as: null, settle_time: db.raw('NOW(6) - INTERVAL 2 MINUTE') };
    await db('dead_executions')
      .where({ execution: toBytes('execution', id) })
      .update(cutOff);
    expect((await lettersOf(one.person).redriveDeadLetter({ id })).redrivenAs, 'no second one').to.equal(made.id);
  });

  it('are looked after when somebody retries the execution, alone or with others', async () => {
    const one = await somebody();
    const [first, second, third] = [await givenUp(one), await givenUp(one), await givenUp(one)];
    await lettersOf(one.person).discardDeadLetter({ id: third });
    const made = await clientOf(world, one.person).retryExecution({ id: first, requestId: '' });
    const filter = ExecutionFilter.fromPartial({ automationId: one.automationId });
    await world.as(one.person, ControlServiceService).retryExecutions({ filter, pageSize: 0, pageToken: '' });
    expect(await lettersOf(one.person).getDeadLetter({ id: first })).to.deep.include({ state: State.REDRIVEN, redrivenAs: made.id });
    expect((await lettersOf(one.person).getDeadLetter({ id: second })).state).to.equal(State.REDRIVEN);
    expect((await lettersOf(one.person).getDeadLetter({ id: third })).state).to.equal(State.DISCARDED);
  });

  it('are redriven and discarded by a filter, and say which were not', async () => {
    const one = await somebody();
    const other = { ...one, automationId: await publish(world, { workspace: one.person.workspace }) };
    const mine = [await givenUp(one), await givenUp(one), await givenUp(one)];
    const theirs = await givenUp(other);
    const event = await deadEvent(one.person.workspace);
    const client = lettersOf(one.person);
    expect((await caught(client.redriveDeadLetters({ filter: filterOf(), pageSize: 0, pageToken: '' }))).reason).to.equal('NO_FIELDS');
    const settledOnes = filterOf({ state: State.DISCARDED });
    expect((await caught(client.discardDeadLetters({ filter: settledOnes, pageSize: 0, pageToken: '' }))).reason).to.equal(
      'FILTER_INVALID',
    );
    const filter = filterOf({ automationId: one.automationId });
    const first = await client.redriveDeadLetters({ filter, pageSize: 2, pageToken: '' });
    const rest = await client.redriveDeadLetters({ filter, pageSize: 2, pageToken: first.nextPageToken });
    expect([first.settledCount, rest.settledCount, rest.nextPageToken]).to.deep.equal([2, 1, '']);
    expect(idsOf(await list(one.person))).to.deep.equal([theirs, event]);
    const refused = await client.redriveDeadLetters({ filter: filterOf({ kind: Kind.EVENT }), pageSize: 0, pageToken: '' });
    expect(refused.refusals.map(({ id, reason }) => ({ id, reason }))).to.deep.equal([{ id: event, reason: 'CONSUMER_GONE' }]);
    const all = await client.discardDeadLetters({ filter: filterOf({ state: State.DEAD }), pageSize: 0, pageToken: '' });
    expect(all).to.deep.include({ settledCount: 2, refusals: [] });
    expect(idsOf(await list(one.person, { state: State.DISCARDED }))).to.deep.equal([theirs, event]);
    expect(mine).to.have.length(3);
  });

  it('of events in every workspace are the platform administrator’s', async () => {
    const admin = world.as(world.person({ scopes: ['platform.manage'] }), PlatformDeadLetterServiceService);
    const one = await somebody();
    const [execution, ids] = [await givenUp(one), [await deadEvent(''), await deadEvent(newId('workspace'))].toReversed()];
    const filter = filterOf({ area: 'executions', consumer: 'executions-test' });
    const found = idsOf(await admin.listPlatformDeadLetters({ filter, pageSize: 2, pageToken: '' }));
    expect(found).to.deep.equal(ids);
    expect((await caught(admin.getPlatformDeadLetter({ id: execution }))).reason).to.equal('RESOURCE_NOT_FOUND');
    expect((await admin.discardPlatformDeadLetter({ id: ids[0] as string })).state).to.equal(State.DISCARDED);
    expect((await caught(lettersOf(one.person).getDeadLetter({ id: ids[1] as string }))).reason).to.equal('RESOURCE_NOT_FOUND');
    expect(
      (await caught(world.as(one.person, PlatformDeadLetterServiceService).getPlatformDeadLetter({ id: ids[0] as string }))).reason,
    ).to.equal('PERMISSION_MISSING');
  });
});
