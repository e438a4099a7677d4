import { createHmac } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { CreateTaskRequest, TaskServiceService } from '#gen/millrace/tasks/v1/task_service.ts';
import { type EventDelivery, EventSubscription, EventDelivery_State as State } from '#gen/millrace/webhooks/v1/subscription.ts';
import {
  CreateEventSubscriptionRequest,
  EventSubscriptionServiceService,
  ListEventDeliveriesRequest,
} from '#gen/millrace/webhooks/v1/subscription_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId, toBytes } from '#platform/id.ts';
import { emit } from '#platform/outbox.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module as executionsModule } from '../executions/module.ts';
import { module as tasksModule } from '../tasks/module.ts';
import { module as webhooksModule } from './module.ts';
import { backoffMs, TYPES } from './subscription.ts';
import * as system from './subscription-system.ts';

// biome-ignore lint/suspicious/noExplicitAny: JSON as it comes
type Json = any;
interface Got {
  headers: IncomingHttpHeaders;
  text: string;
  event: Json;
}

// A receiver at the edge of the machine, which answers as it is told.
async function startReceiver() {
  const got: Got[] = [];
  const receiver = { got, answer: 200, url: '', stop: () => void server.close().closeAllConnections() };
  const server: Server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    got.push({ headers: request.headers, text, event: JSON.parse(text) });
    response.writeHead(receiver.answer, { location: receiver.url }).end(receiver.answer === 200 ? '' : 'not now');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  receiver.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/events`;
  return receiver;
}
type Receiver = Awaited<ReturnType<typeof startReceiver>>;

describe('subscriptions to events', function () {
  this.timeout(60_000);
  let world: World;
  let person: Person;
  let tasks: ClientOf<TaskServiceService>;
  let api: ClientOf<EventSubscriptionServiceService>;
  const receivers: Receiver[] = [];
  before(async () => {
    world = await startWorld({
      targets: ['tasks', 'executions', 'webhooks'],
      modules: [tasksModule, executionsModule, webhooksModule],
      env: { MILLRACE_EGRESS_ALLOW: '127.0.0.0/8' },
    });
  });
  after(async () => {
    await world?.stop();
    for (const receiver of receivers) receiver.stop();
  });
  beforeEach(() => {
    person = world.person();
    tasks = world.as(person, TaskServiceService);
    api = world.as(person, EventSubscriptionServiceService);
  });

  const receive = async (answer = 200): Promise<Receiver> => {
    const receiver = await startReceiver();
    receiver.answer = answer;
    receivers.push(receiver);
    return receiver;
  };
  const subscribe = (url: string, types = ['task.created']): Promise<EventSubscription> =>
    api.createEventSubscription(CreateEventSubscriptionRequest.fromPartial({ subscription: { name: 'a', url, types } }));
  const task = (title = 'x') => tasks.createTask(CreateTaskRequest.fromPartial({ task: { title } }));
  const read = (one: EventSubscription) => api.getEventSubscription({ id: one.id });
  const listed = async (one: EventSubscription, states: State[] = []): Promise<EventDelivery[]> =>
    (await api.listEventDeliveries(ListEventDeliveriesRequest.fromPartial({ subscriptionId: one.id, states }))).deliveries;
  const only = (one: EventSubscription, what: string, is: (delivery: EventDelivery) => boolean): Promise<EventDelivery> =>
    until(what, async () => (await listed(one)).find(is));
  const caught = (work: Promise<unknown>) =>
    work.then(
      (answer) => answer,
      (error) => error,
    );
  const rows = (one: EventSubscription) =>
    world
      .db('webhooks')('event_deliveries')
      .where({ subscription: toBytes('subscription', one.id) });
  const row = (one: EventSubscription) =>
    world
      .db('webhooks')('event_subscriptions')
      .where({ id: toBytes('subscription', one.id) });
  const now = () => world.db('webhooks').raw('utc_timestamp(6)');
  const past = () => world.db('webhooks').raw('utc_timestamp(6) - interval 1 second');
  const signature = (secret: string, { headers, text }: Got) =>
    createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64'))
      .update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${text}`)
      .digest('base64');

  it('are sent what they want, as signed CloudEvents, once', async () => {
    const receiver = await receive();
    const made = await subscribe(receiver.url, ['task.created', 'task.completed']);
    expect(made.secret).to.match(/^whsec_/);
    expect(await read(made)).to.deep.equal({ ...made, secret: '' });
    const { id } = await task('Zoë');
    await tasks.startTask({ id });
    await tasks.completeTask({ id });
    await until('both events', () => receiver.got.length === 2);
    const first = receiver.got.find(({ event }) => event.type === 'task.created') as Got;
    expect(first.event).to.deep.include({ specversion: '1.0', source: 'millrace/tasks', subject: id, workspaceid: person.workspace });
    expect(first.event.data).to.deep.include({ workspaceId: person.workspace, actorId: person.user });
    expect(first.event.data.task).to.include({ id, title: 'Zoë', state: 'PENDING' });
    expect(first.headers).to.include({
      'content-type': 'application/cloudevents+json',
      'webhook-signature': `v1,${signature(made.secret, first)}`,
    });
    const delivery = await only(made, 'its delivery', (one) => one.id === first.headers['webhook-id'] && one.state === State.DELIVERED);
    expect(delivery).to.include({ type: 'task.created', subject: id, attemptCount: 1, responseStatus: 200, error: '' });
    expect((await api.getEventDelivery({ subscriptionId: made.id, id: delivery.id })).payload).to.equal(first.text);
  });

  it('hear of executions in their workspace only, also where one event tells of several workspaces', async () => {
    const stranger = world.person();
    const [own, other] = [await receive(), await receive()];
    await subscribe(own.url, ['execution.created']);
    await world
      .as(stranger, EventSubscriptionServiceService)
      .createEventSubscription(CreateEventSubscriptionRequest.fromPartial({ subscription: { name: 'b', url: other.url, types: ['*'] } }));
    const item = ({ workspace }: Person) => ({
      execution: { id: newId('execution'), state: Execution_State.QUEUED },
      workspaceId: workspace,
    });
    const items = [person, stranger, person, world.person()].map(item);
    const data = ExecutionEvent.encode(ExecutionEvent.fromPartial({ items })).finish();
    const event = { type: 'execution.created', verb: 'created', subject: newId('execution'), workspace: '', version: 1, data };
    await world.db('executions').transaction((tx) => emit(tx, { ...event, schema: 'millrace.executions.v1.ExecutionEvent' }));
    await until('the events', () => own.got.length >= 2 && other.got.length >= 1);
    const ids = items.map(({ execution }) => execution.id);
    expect(own.got.map(({ event }) => event.subject).sort()).to.deep.equal([ids[0], ids[2]].sort());
    expect(other.got.map(({ event }) => event.subject)).to.deep.equal([ids[1]]);
    expect(own.got[0]?.event.data.execution).to.include({ state: 'QUEUED', attemptCount: 0 });
    expect(new Set([...own.got, ...other.got].map(({ event }) => event.id)).size).to.equal(3);
    expect(
      await listed((await api.listEventSubscriptions({ pageSize: 0, pageToken: '' })).subscriptions[0] as EventSubscription),
    ).to.have.length(2);
  });

  it('hear nothing of what was before them', async () => {
    const [later, before] = [await receive(), await receive()];
    const made = await subscribe(later.url);
    await row(made).update({ create_time: world.db('webhooks').raw('utc_timestamp(6) + interval 1 hour') });
    await subscribe(before.url);
    await task();
    await until('it to arrive elsewhere', () => before.got.length === 1);
    expect(await listed(made)).to.deep.equal([]); // both rows would be of one commit
  });

  it('are tried again with the same id until they are received', async () => {
    const receiver = await receive(503);
    const made = await subscribe(receiver.url);
    await task();
    const failed = await only(made, 'a failure', ({ state }) => state === State.RETRYING);
    expect(failed).to.include({ attemptCount: 1, responseStatus: 503, error: 'it answered 503: not now' });
    expect(failed.nextAttemptTime?.getTime()).to.be.above(failed.lastAttemptTime?.getTime() ?? 0);
    expect((await read(made)).failureCount).to.equal(1);
    receiver.answer = 200;
    await rows(made).update({ next_attempt_time: now() });
    await only(made, 'its reception', ({ state }) => state === State.DELIVERED);
    expect(receiver.got.map(({ headers }) => headers['webhook-id'])).to.deep.equal([failed.id, failed.id]);
    expect(await read(made)).to.include({ failureCount: 0, failingSinceTime: undefined });
  });

  it('follow no redirect', async () => {
    const [receiver, target] = [await receive(307), await receive()];
    const made = await subscribe(receiver.url);
    receiver.url = target.url;
    await task();
    await only(made, 'a failure', ({ state }) => state === State.RETRYING);
    expect(target.got).to.deep.equal([]);
  });

  it('are left alone after five failures, while others are sent to; then one send decides', async () => {
    const [broken, well] = [await receive(500), await receive()];
    const made = await subscribe(broken.url);
    await subscribe(well.url);
    for (let n = 1; n <= 8; n += 1) {
      await task();
      await until('it to arrive elsewhere', () => well.got.length === n);
    }
    const paused = await until('the pause', async () => {
      const found = await read(made);
      return found.pausedUntilTime ? found : undefined;
    });
    expect(paused.failureCount).to.be.at.least(5);
    const sends = broken.got.length;
    await rows(made).whereNotNull('next_attempt_time').update({ next_attempt_time: now() });
    for (let n = 9; n <= 12; n += 1) {
      await task();
      await until('it to arrive elsewhere', () => well.got.length === n); // the sender has looked what is due
    }
    expect(broken.got.length).to.equal(sends);
    await row(made).update({ open_until: past() });
    await until('one send', () => broken.got.length === sends + 1);
    await until('the pause', async () => ((await read(made)).pausedUntilTime?.getTime() ?? 0) > Date.now());
    broken.answer = 200;
    await row(made).update({ open_until: past() });
    await rows(made).whereNotNull('next_attempt_time').update({ next_attempt_time: now() });
    await until('all of them', async () => (await listed(made, [State.DELIVERED])).length === 12);
    expect(await read(made)).to.include({ failureCount: 0, pausedUntilTime: undefined });
  });

  it('leave dead letters after a day of failures, which are redriven or discarded', async () => {
    const receiver = await receive(500);
    const made = await subscribe(receiver.url);
    await task();
    await only(made, 'a failure', ({ state }) => state === State.RETRYING);
    await rows(made).update({ retry_until: past(), next_attempt_time: now() });
    const dead = await only(made, 'its death', ({ state }) => state === State.DEAD);
    expect(dead.nextAttemptTime).to.equal(undefined);
    const which = { subscriptionId: made.id, id: dead.id };
    const stranger = world.as(world.person(), EventSubscriptionServiceService);
    for (const call of [stranger.redriveEventDelivery, stranger.discardEventDelivery, stranger.getEventDelivery])
      expect(await caught(call(which))).to.include({ code: status.NOT_FOUND });
    expect(await api.discardEventDelivery(which)).to.include({ state: State.DISCARDED });
    receiver.answer = 200;
    expect(await api.redriveEventDelivery(which)).to.include({ state: State.PENDING, attemptCount: 0 });
    await only(made, 'its reception', ({ state }) => state === State.DELIVERED);
    expect(await api.discardEventDelivery(which), 'received').to.include({ state: State.DELIVERED });
    expect(await api.redriveEventDelivery(which), 'received').to.include({ state: State.DELIVERED });
  });

  it('are disabled when their receiver is gone, or fails for days', async () => {
    const gone = await receive(410);
    const made = await subscribe(gone.url);
    await task();
    await until('it to be disabled', async () => (await read(made)).disabled);
    expect((await read(made)).disabledReason).to.include('410');
    const failing = await receive(500);
    const long = await subscribe(failing.url);
    await row(long).update({ failing_since: world.db('webhooks').raw('utc_timestamp(6) - interval 6 day') });
    await task();
    await until('it to be disabled', async () => (await read(long)).disabled);
    gone.answer = 200;
    expect(await api.enableEventSubscription({ id: made.id })).to.include({ disabled: false, disabledReason: '', failureCount: 0 });
    await rows(made).whereNotNull('next_attempt_time').update({ next_attempt_time: now() });
    await until('what waited', async () => (await listed(made, [State.DELIVERED])).length >= 1);
  });

  it('carry a signature of each secret while one replaces the other', async () => {
    const receiver = await receive();
    const made = await subscribe(receiver.url);
    const next = await api.rotateEventSubscriptionSecret({ id: made.id, overlap: undefined });
    await task();
    const got = await until('the event', () => receiver.got[0]);
    expect(got.headers['webhook-signature']).to.equal(`v1,${signature(next.secret, got)} v1,${signature(made.secret, got)}`);
    const last = await api.rotateEventSubscriptionSecret({ id: made.id, overlap: { seconds: 0, nanos: 0 } });
    await task();
    const second = await until('the event', () => receiver.got[1]);
    expect(second.headers['webhook-signature']).to.equal(`v1,${signature(last.secret, second)}`);
  });

  it('go to no inner place, when they are made and when they are sent', async () => {
    for (const url of [
      'https://10.0.0.1/',
      'http://example.com/',
      'https://[::1]/',
      'https://user:pw@example.com/',
      'ftp://example.com/',
      'x',
    ]) {
      const fault = await caught(subscribe(url));
      if (url === 'http://example.com/')
        expect((fault as EventSubscription).id, url).to.match(/^sub_/); // its addresses are looked at later
      else expect(fault, url).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
    }
    const made = await subscribe('https://hooks.example.com/');
    await row(made).update({ url: 'https://169.254.169.254/latest/meta-data/' });
    await task();
    const failed = await only(made, 'a failure', ({ state }) => state === State.RETRYING);
    expect(failed).to.include({ responseStatus: 0, error: 'its host is not on the internet' });
  });

  it('are made only by who may read what they tell, of events that there are', async () => {
    const clerk = world.as({ ...person, scopes: ['webhooks.write', 'tasks.read'] }, EventSubscriptionServiceService);
    const make = (types: string[]) =>
      caught(
        clerk.createEventSubscription(
          CreateEventSubscriptionRequest.fromPartial({ subscription: { name: 'a', url: 'https://example.com/', types } }),
        ),
      );
    expect(await make(['task.created'])).to.include({ version: 1 });
    for (const types of [['*'], ['execution.ended'], ['task.created', 'automation.deleted']])
      expect(await make(types)).to.include({ code: status.PERMISSION_DENIED, reason: 'PERMISSION_MISSING' });
    for (const types of [[], ['user.registered'], ['task.*']])
      expect(await make(types)).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
  });

  it('are changed, listed and deleted in their workspace', async () => {
    const made = await subscribe('https://example.com/');
    const changed = await api.updateEventSubscription({
      id: made.id,
      subscription: EventSubscription.fromPartial({ name: 'b', types: ['task.run'] }),
      updateMask: undefined,
    });
    expect(changed).to.deep.include({ name: 'b', types: ['task.run'], url: made.url, version: 2 });
    expect((await api.listEventSubscriptions({ pageSize: 0, pageToken: '' })).subscriptions).to.deep.equal([changed]);
    expect(await api.disableEventSubscription({ id: made.id })).to.include({ disabled: true, version: 3 });
    const stranger = world.as(world.person(), EventSubscriptionServiceService);
    for (const call of [
      stranger.getEventSubscription,
      stranger.deleteEventSubscription,
      stranger.enableEventSubscription,
      stranger.disableEventSubscription,
    ])
      expect(await caught(call({ id: made.id }))).to.include({ code: status.NOT_FOUND });
    await api.deleteEventSubscription({ id: made.id });
    expect(await caught(read(made))).to.include({ code: status.NOT_FOUND });
  });

  it('are sent by one process at a time, and by another when that one has died', async () => {
    const db = world.db('webhooks');
    const which = { workspace: person.workspace, id: newId('subscription') }; // of no subscription: the sender here does not take them
    const one = { workspace: which.workspace, subscriptionId: which.id, type: 'task.created', subject: 'x', payload: '{}' };
    await db.transaction((tx) =>
      system.insert(
        tx,
        Array.from({ length: 10 }, () => one),
      ),
    );
    const both = await Promise.all([system.claimDue(db, which, 7), system.claimDue(db, which, 7)]);
    const rest = await system.claimDue(db, which, 10);
    const ids = [...both, rest].flat().map(({ id }) => id);
    expect([ids.length, new Set(ids).size]).to.deep.equal([10, 10]);
    expect(await system.claimDue(db, which, 10), 'while they are sent').to.deep.equal([]);
    const own = db('event_deliveries').where({ subscription: toBytes('subscription', which.id) });
    await own.clone().update({ next_attempt_time: past() });
    const again = await system.claimDue(db, which, 10);
    expect(again.map(({ attempts }) => attempts)).to.deep.equal(Array.from({ length: 10 }, () => 1));
    await own.clone().update({ state: 'DISCARDED', next_attempt_time: null });
    await system.settle(db, again[0] as system.Due, { status: 200 });
    expect(await own.clone().where({ state: 'DELIVERED' }), 'discarded while it was sent').to.deep.equal([]);
  });

  it('wait longer after each failure, thirteen times in a day', () => {
    const pauses = Array.from({ length: 30 }, (_, attempts) => backoffMs(attempts, 0.5));
    expect(pauses).to.deep.equal([...pauses].sort((a, b) => a - b));
    expect(backoffMs(0, 0)).to.equal(2500);
    expect(backoffMs(40, 1)).to.equal(3 * 3_600_000);
    let sends = 0;
    for (let ms = 0; ms < 24 * 3_600_000; ms += backoffMs(sends, 1)) sends += 1;
    expect(sends).to.be.within(12, 16);
  });

  it('are of the events that the contracts name, but for accounts', () => {
    const named = globSync('proto/millrace/*/v1/*_event.proto').flatMap((file) => {
      const [, list = ''] =
        /CloudEvents types: ([^.]*(?:\.[a-z-]+`[^.]*)*)\./.exec(readFileSync(file, 'utf8').replaceAll('\n// ', ' ')) ?? [];
      return [...list.matchAll(/`([a-z._-]+)`/g)].map(([, type = '']) => type);
    });
    expect(named.filter((type) => !type.startsWith('user.')).sort()).to.deep.equal(Object.values(TYPES).flat().sort());
  });
});
