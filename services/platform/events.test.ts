import { expect } from 'chai';
import { startWorld, until, type World } from '../../tests/world.ts';
import { eventsStream } from './bus.ts';
import type { ReceivedEvent } from './consumer.ts';
import { Fault } from './errors.ts';
import type { Call } from './handlers.ts';
import { claimKey } from './idempotency.ts';
import { migrate, pending, rollback } from './migrate.ts';
import type { Module, Platform } from './module.ts';
import { emit, emitSql } from './outbox.ts';

// A module with a schema of the platform's own tables only.
let platform: Platform;
const migrations = new URL('./none/', new URL('../../tests/fixtures/', import.meta.url));
const fixture: Module = {
  name: 'tasks',
  migrations,
  async start(p) {
    platform = p;
    return async () => undefined;
  },
};

const event = (n: number) => ({
  type: 'task.created',
  verb: 'created',
  subject: `tsk_${n}`,
  workspace: 'wsp_1',
  version: n,
  schema: 'millrace.tasks.v1.TaskEvent',
  data: Buffer.from([n]),
});

describe('events', () => {
  let world: World;
  beforeEach(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [fixture] });
  });
  afterEach(() => world?.stop());

  const outbox = async () => Number((await platform.db('outbox').count('* as n').first())?.n);
  const collect = (name: string, into: ReceivedEvent[]) =>
    platform.bus.consume({
      name,
      area: 'tasks',
      types: ['task.created'],
      db: platform.db,
      handle: async (_tx, one) => void into.push(one),
    });

  it('arrive once for each consumer after the commit, and never when it is rolled back', async () => {
    const seen: ReceivedEvent[] = [];
    const stop = collect('reader', seen);
    await platform.db.transaction((tx) => emit(tx, event(1), { ...event(2), type: 'task.deleted' }));
    await platform.db.transaction((tx) => emit(tx, event(3)).then(() => Promise.reject(new Error('no')))).catch(() => undefined);
    await platform.db.raw(emitSql(event(4)));
    platform.relay.kick();
    await until('two events', () => seen.length >= 2);
    expect(seen.map((one) => [one.subject, one.version, [...one.data], one.workspace])).to.deep.equal([
      ['tsk_1', 1, [1], 'wsp_1'],
      ['tsk_4', 4, [4], 'wsp_1'],
    ]);
    expect(await outbox()).to.equal(0);
    await stop();
  });

  it('wait in the outbox while the stream is gone, and a second delivery changes nothing', async () => {
    const seen: ReceivedEvent[] = [];
    const { jsm, js } = await platform.bus.jetstream();
    await platform.db.transaction((tx) => emit(tx, event(1)));
    const stop = collect('reader', seen);
    await until('the first event', () => seen.length === 1);
    await jsm.streams.delete(eventsStream(world.config.natsPrefix));
    await platform.db.transaction((tx) => emit(tx, event(2)));
    await until('the second event after the wipe', () => seen.length === 2, 15_000);
    const stored = await jsm.streams.getMessage(eventsStream(world.config.natsPrefix), {
      last_by_subj: `${world.config.natsPrefix}.events.tasks.tsk_2.created`,
    });
    if (!stored) throw new Error('the event is not in the stream');
    const { header, data, subject } = stored;
    header.delete('Nats-Msg-Id');
    await js.publish(subject, data, { headers: header });
    await platform.db.transaction((tx) => emit(tx, event(3)));
    await until('the third event', () => seen.some((one) => one.subject === 'tsk_3'));
    expect(seen.map((one) => one.subject)).to.deep.equal(['tsk_1', 'tsk_2', 'tsk_3']);
    await stop();
  }).timeout(30_000);

  it('are given again after a failure, which leaves no trace in the database', async () => {
    let tries = 0;
    const stop = platform.bus.consume({
      name: 'stumbling',
      area: 'tasks',
      db: platform.db,
      async handle(tx, one) {
        await tx('idempotency').insert({
          key_hash: Buffer.alloc(32, ++tries),
          request_hash: Buffer.alloc(32),
          resource: one.subject,
          create_time: new Date(),
        });
        if (tries < 3) throw new Error('not yet');
      },
    });
    await platform.db.transaction((tx) => emit(tx, event(1)));
    await until('the third try', () => tries === 3);
    await until('one row', async () => (await platform.db('idempotency').select()).length === 1);
    await stop();
  });
});

describe('idempotency keys', () => {
  let world: World;
  before(async () => {
    world = await startWorld({ targets: ['tasks'], modules: [fixture] });
  });
  after(() => world?.stop());
  const call = (requestId: string, body: number, user = 'usr_1') =>
    ({ caller: { user, workspace: 'wsp_1' }, method: '/x', requestId, requestHash: Buffer.alloc(32, body) }) as unknown as Call;
  const claim = (one: Call, id: string) => platform.db.transaction((tx) => claimKey(tx, one, id));

  it('let one of many equal requests at once make the resource', async () => {
    const answers = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((id) => claim(call('k', 1), id)));
    expect(answers.filter((one) => one === undefined)).to.have.length(1);
    expect(new Set(answers.filter(Boolean)).size).to.equal(1);
  });
  it('refuse another body, and count for each user by himself', async () => {
    await claim(call('k2', 1), 'a');
    const fault = await claim(call('k2', 2), 'b').catch((error) => error as Fault);
    expect(fault).to.be.instanceOf(Fault).and.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
    expect(await claim(call('k2', 2, 'usr_2'), 'b')).to.equal(undefined);
  });
  it('are forgotten with a transaction that fails', async () => {
    await platform.db
      .transaction((tx) => claimKey(tx, call('k3', 1), 'a').then(() => Promise.reject(new Error('no'))))
      .catch(() => undefined);
    expect(await claim(call('k3', 1), 'b')).to.equal(undefined);
  });

  it('live in a schema that can be taken back step by step and made again', async () => {
    const area = { name: 'elsewhere', migrations };
    const names = await migrate(world.config, area);
    expect(names).to.include('platform-0001-outbox.ts');
    expect(await migrate(world.config, area)).to.deep.equal([]);
    for (let left = names.length; left > 0; left -= 1) expect(await rollback(world.config, area)).to.have.length(1);
    expect(await pending(world.db('elsewhere'), area)).to.have.length(names.length);
    await Promise.all([migrate(world.config, area), migrate(world.config, area), migrate(world.config, area)]);
    expect(await pending(world.db('elsewhere'), area)).to.deep.equal([]);
  });
});
