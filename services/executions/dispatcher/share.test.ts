import { expect } from 'chai';
import { openBus } from '#platform/bus.ts';
import { openLog } from '#platform/log.ts';
import { until } from '../../../tests/world.ts';
import { accept, breaches, publish } from '../engine/fixture.test.ts';
import { ring } from '../engine/tickets.ts';
import { type Lab, startLab } from './fixture.test.ts';
import { type Peer, startPeer } from './peer.test.ts';

const LANES = 50;
const EACH = 40;

describe('two dispatchers', function () {
  this.timeout(60_000);
  let lab: Lab;
  const peers: Peer[] = [];
  before(async () => {
    lab = await startLab({ targets: ['executions'] });
  });
  after(async () => {
    await lab.stop();
    for (const peer of peers) await peer.vanish();
  });

  it('share the servers, and everything in 50 lanes ends once, though one of them is killed on the way', async () => {
    const db = lab.world.db('executions');
    const bus = openBus(lab.world.config, openLog('silent'));
    const [first] = await Promise.all([lab.dispatcher(), lab.dispatcher()]);
    for (let index = 0; index < 12; index += 1) {
      const peer = await startPeer({ slots: 8 });
      await peer.register(db);
      peers.push(peer);
    }
    await until('the servers to be shared', async () => (await db('servers').distinct('owner').whereNotNull('owner')).length === 2);
    const lane = { queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 };
    await db('lanes').insert(
      Array.from({ length: LANES }, (_, index) => ({ ...lane, lane: index + 1, workspace: Buffer.alloc(16, index) })),
    );
    const automation = await publish(db);
    const ids = await accept(
      db,
      Array.from({ length: LANES * EACH }, (_, index) => ({ automation, lane: (index % LANES) + 1 })),
    );
    ring(bus, Array.from({ length: LANES }, (_, index) => index + 1)); // biome-ignore format: a line
    const ended = async () => Number((await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED' }).first())?.n);
    await until('some to end', async () => (await ended()) > 200);
    first.signal('SIGKILL');
    await until('all to end', async () => (await ended()) === ids.length, 40_000);
    expect(await db('executions').whereNot({ version: 2 })).to.deep.equal([]);
    expect(await db('attempts').whereNot({ number: 1, state: 'SUCCEEDED' })).to.deep.equal([]);
    expect(Number((await db('attempts').count({ n: '*' }).first())?.n)).to.equal(ids.length);
    expect(await breaches(db)).to.deep.equal({ misplaced: 0, slots: 0 });
    const runs = peers.flatMap(({ jobs }) => jobs.map(({ job }) => job.executionId));
    expect(new Set(runs).size).to.equal(ids.length);
    expect(peers.filter(({ jobs }) => jobs.length > 0).length).to.be.above(1);
    await bus.stop();
  });
});
