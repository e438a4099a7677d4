import { expect } from 'chai';
import { DeadLetter_State as State } from '#gen/millrace/executions/v1/dead_letter.ts';
import { EventLetterServiceService } from '#gen/millrace/executions/v1/event_letter_service.ts';
import { RegisterRequest } from '#gen/millrace/identity/v1/identity_service.ts';
import { TaskEvent } from '#gen/millrace/tasks/v1/task_event.ts';
import { startWorld, type World } from '../../tests/world.ts';
import { bury, type Consumer, type ReceivedEvent } from './consumer.ts';
import { sweep } from './dead-letter-store.ts';
import type { Fault } from './errors.ts';
import { newId, toBytes } from './id.ts';
import type { Module, Platform } from './module.ts';

let platform: Platform;
const fixture: Module = {
  name: 'tasks',
  migrations: new URL('./none/', new URL('../../tests/fixtures/', import.meta.url)),
  async start(p) {
    platform = p;
    return async () => undefined;
  },
};
const caught = (work: Promise<unknown>): Promise<Fault> =>
  work.then(
    () => {
      throw new Error('it was not refused');
    },
    (error) => error as Fault,
  );

describe('dead events', function () {
  this.timeout(30_000);
  let world: World;
  let isWell = false;
  let taken: ReceivedEvent[] = [];
  let stop: () => Promise<void>;
  let consumer: Consumer;
  before(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [fixture] });
    consumer = {
      name: 'tasks-test',
      area: 'tasks',
      db: platform.db,
      async handle(tx, event) {
        if (!isWell) await tx.raw('SELECT ? FROM nowhere', ['a secret']);
        taken.push(event);
      },
    };
    stop = platform.bus.consume(consumer);
  });
  beforeEach(() => {
    isWell = false;
    taken = [];
  });
  after(async () => {
    await stop?.();
    await world?.stop();
  });

  const letters = () => world.asService('executions', EventLetterServiceService);
  const settler = newId('user');
  const workspace = newId('workspace');

  async function dead(
    overrides: Partial<ReceivedEvent> = {},
    name = consumer.name,
  ): Promise<{ area: string; workspaceId: string; consumer: string; eventId: string }> {
    const event = {
      id: newId('event'),
      type: 'task.created',
      subject: newId('task'),
      workspace,
      version: 3,
      schema: 'millrace.tasks.v1.TaskEvent',
      time: new Date('2026-03-04T05:06:07.890Z'),
      data: TaskEvent.encode(TaskEvent.fromPartial({ task: { title: 'a title' } })).finish(),
      ...overrides,
    };
    await bury({ ...consumer, name }, event, 10, new Error('broken'));
    return { area: 'tasks', workspaceId: workspace, consumer: name, eventId: event.id };
  }
  const list = (overrides: object = {}) =>
    letters().listEventLetters({ area: 'tasks', workspaceId: workspace, consumer: '', state: State.DEAD, createTimeFrom: undefined, createTimeTo: undefined, pageSize: 10, pageToken: '', ...overrides }); // biome-ignore format: a row
  const idsOf = ({ letters: all }: { letters: { id: string }[] }) => all.map(({ id }) => id);

  it('are listed the newest first, a page at a time, and shown with what they tell', async () => {
    const all = [await dead(), await dead({}, 'tasks-other'), await dead()];
    const wanted = all.toReversed().map(({ area, consumer: name, eventId }) => `${area}.${name}.${eventId}`);
    const first = await list({ pageSize: 2 });
    const second = await list({ pageSize: 2, pageToken: first.nextPageToken });
    expect([...idsOf(first), ...idsOf(second)]).to.deep.equal(wanted);
    expect(second.nextPageToken).to.equal('');
    expect(idsOf(await list({ consumer: 'tasks-other' }))).to.deep.equal([wanted[1]]);
    expect(idsOf(await list({ workspaceId: newId('workspace') }))).to.deep.equal([]);
    expect(idsOf(await list({ createTimeTo: new Date('2026-01-01') }))).to.deep.equal([]);
    expect(idsOf(await list({ area: 'identity' })), 'an area that is not here').to.deep.equal([]);
    const shown = await letters().getEventLetter(all[0] as (typeof all)[0]);
    expect(shown).to.deep.include({ state: State.DEAD, attemptCount: 10, consumer: 'tasks-test', area: 'tasks' });
    expect(shown.error?.message).to.equal('broken');
    expect(shown.event).to.deep.include({
      type: 'task.created',
      schema: 'millrace.tasks.v1.TaskEvent',
      time: new Date('2026-03-04T05:06:07.890Z'),
    });
    expect(shown.event?.data).to.deep.equal({ task: { title: 'a title' } });
    expect((await caught(letters().getEventLetter({ ...(all[0] as (typeof all)[0]), workspaceId: newId('workspace') }))).reason).to.equal(
      'RESOURCE_NOT_FOUND',
    );
    const gone = await caught(letters().redriveEventLetter({ ...(all[1] as (typeof all)[0]), settlerId: settler }));
    expect(gone.reason).to.equal('CONSUMER_GONE');
  });

  it('hide what the contract marks as sensitive', async () => {
    const data = RegisterRequest.encode(RegisterRequest.fromPartial({ email: 'ann@example.org', password: 'secret words' })).finish();
    const { event } = await letters().getEventLetter(await dead({ schema: 'millrace.identity.v1.RegisterRequest', data }));
    expect(event?.data).to.deep.equal({ email: 'ann@example.org' });
    const unknown = await letters().getEventLetter(await dead({ schema: 'millrace.tasks.v1.Unknown' }));
    expect(unknown.event?.data).to.equal(undefined);
  });

  it('are handed to their consumer again, once', async () => {
    const named = { ...(await dead()), settlerId: settler };
    const again = await caught(letters().redriveEventLetter(named));
    expect(again.reason).to.equal('REDRIVE_FAILED');
    const now = await letters().getEventLetter(named);
    expect(now).to.deep.include({ state: State.DEAD, attemptCount: 11 });
    expect(now.error?.message)
      .to.match(/nowhere' doesn't exist/)
      .and.not.include('a secret');
    isWell = true;
    const done = await Promise.all([1, 2, 3].map(() => letters().redriveEventLetter(named)));
    for (const one of done) expect(one).to.deep.include({ state: State.REDRIVEN, settlerId: settler });
    expect(taken.map(({ id, version, workspace: where }) => ({ id, version, where }))).to.deep.equal([
      { id: named.eventId, version: 3, where: workspace },
    ]);
    expect((await caught(letters().discardEventLetter(named))).reason).to.equal('DEAD_LETTER_SETTLED');
  });

  it('that the consumer took in meanwhile are only marked', async () => {
    isWell = true;
    const named = { ...(await dead()), settlerId: settler };
    await platform
      .db('inbox')
      .insert({ consumer: consumer.name, event: toBytes('event', named.eventId), create_time: platform.db.raw('NOW(6)') });
    expect((await letters().redriveEventLetter(named)).state).to.equal(State.REDRIVEN);
    expect(taken).to.deep.equal([]);
  });

  it('can be set aside, and what was settled long ago is forgotten', async () => {
    const named = { ...(await dead()), settlerId: settler };
    expect((await letters().discardEventLetter(named)).state).to.equal(State.DISCARDED);
    expect((await letters().discardEventLetter(named)).state).to.equal(State.DISCARDED);
    expect((await caught(letters().redriveEventLetter(named))).reason).to.equal('DEAD_LETTER_SETTLED');
    const old = await dead();
    const key = { event: toBytes('event', named.eventId) };
    await platform
      .db('dead_letters')
      .whereIn('event', [key.event, toBytes('event', old.eventId)])
      .update({ create_time: '2020-01-01', settle_time: '2020-01-01' });
    await sweep(platform.db);
    expect((await caught(letters().getEventLetter(named))).reason).to.equal('RESOURCE_NOT_FOUND');
    expect((await letters().getEventLetter(old)).state).to.equal(State.DEAD);
  });
});
