import { expect } from 'chai';
import { openBus } from '#platform/bus.ts';
import { readSettings, setting, text } from '#platform/config.ts';
import type { Db } from '#platform/db.ts';
import { openLog } from '#platform/log.ts';
import { type Link, openLink } from '../../../tests/chaos/link.ts';
import { startWorld, until, type World } from '../../../tests/world.ts';
import { accept, breaches, publish, schemaOnly } from '../engine/fixture.test.ts';
import { workStream } from '../engine/tickets.ts';
import { SHORT } from './fixture.test.ts';
import { module as dispatcher } from './module.ts';
import { type Peer, startPeer } from './peer.test.ts';

const { natsUrl } = readSettings({
  natsUrl: setting('MILLRACE_TEST_NATS_URL', text.default('nats://127.0.0.1:44222'), 'the broker of tests'),
});
const LANES = 40; // more than one claim takes

describe('work while the broker takes no tickets', function () {
  this.timeout(60_000);
  let world: World;
  let db: Db;
  let link: Link;
  let peer: Peer;
  let automation: Buffer;
  let ours: ReturnType<typeof openBus>;

  before(async () => {
    const url = new URL(natsUrl);
    link = await openLink(Number(url.port));
    url.port = String(link.port);
    world = await startWorld({
      targets: ['executions', 'dispatcher'],
      modules: [schemaOnly, dispatcher],
      env: { ...SHORT, MILLRACE_NATS_URL: String(url) },
    });
    db = world.db('executions');
    const lane = { queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 };
    await db('lanes').insert(
      Array.from({ length: LANES }, (_, index) => ({ ...lane, lane: index + 1, workspace: Buffer.alloc(16, index) })),
    );
    automation = await publish(db);
    ours = openBus({ natsUrl, natsPrefix: world.config.natsPrefix }, openLog('silent')); // past the link
    await ours.connection();
    peer = await startPeer({ slots: 4 });
    await peer.register(db);
    await until('the session to open', () => peer.epochs.length > 0);
  });
  afterEach(() => link.mend());
  after(async () => {
    await peer.vanish();
    await ours.stop();
    await world.stop();
    link.stop();
  });

  const accepted = (count: number) =>
    accept(
      db,
      Array.from({ length: count }, (_, index) => ({ automation, lane: (index % LANES) + 1 })),
    );
  const ended = (count: number, patienceMs: number) =>
    until(
      'all to end',
      async () => (await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n === count,
      patienceMs,
    );
  const said = (words: string) => world.logged().split(words).length - 1;

  it('starts once a second what is there, when the broker is away', async () => {
    link.cut('refused');
    await accepted(200);
    await ended(200, 15_000);
    expect(peer.jobs).to.have.length(200);
    expect(said('the broker takes no tickets')).to.equal(1);
    expect(await breaches(db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  it('goes back to tickets when it takes them again', async () => {
    await accepted(40);
    await ended(240, 15_000);
    await until('the word of it', async () => {
      await accepted(1); // tickets are asked about while there is work
      return said('the broker takes tickets again') === 1;
    }); // biome-ignore format: a probe
    expect(said('the broker takes no tickets')).to.equal(1);
  });

  it('starts it when the broker does not answer', async () => {
    const before = (await db('executions').count({ n: '*' }).first())?.n as number;
    await ended(before, 15_000);
    link.cut('silent');
    await accepted(200);
    await ended(before + 200, 30_000);
    expect(said('the broker takes no tickets')).to.equal(2);
    expect(await breaches(db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  it('starts it when the broker stores nothing', async () => {
    link.mend();
    await until('tickets again', async () => {
      await accepted(1);
      return said('the broker takes tickets again') === 2;
    }); // biome-ignore format: a probe
    const before = (await db('executions').count({ n: '*' }).first())?.n as number;
    await ended(before, 15_000);
    const { jsm } = await ours.jetstream();
    await jsm.streams.update(workStream(ours.prefix), { max_msgs: 0, max_bytes: 1 });
    await accepted(200);
    await ended(before + 200, 30_000);
    expect(said('the broker takes no tickets')).to.equal(3);
  });
});
