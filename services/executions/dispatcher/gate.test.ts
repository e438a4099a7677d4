import { expect } from 'chai';
import { openBus } from '#platform/bus.ts';
import { type Db, openPool } from '#platform/db.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { startWorld, until, type World } from '../../../tests/world.ts';
import { accept, breaches, publish, schemaOnly } from '../engine/fixture.test.ts';
import { EVERYONE, refill } from '../engine/gates.ts';
import * as notices from '../engine/notices.ts';
import { ring } from '../engine/tickets.ts';
import { SHORT } from './fixture.test.ts';
import { openGate } from './gate.ts';
import { module as dispatcher } from './module.ts';
import { type Peer, startPeer } from './peer.test.ts';

describe('what queues hand out', function () {
  this.timeout(60_000);
  let world: World;
  let db: Db;
  let automation: Buffer;
  let bus: ReturnType<typeof openBus>;
  let peer: Peer;
  const workspace = newBytes();
  const LANES = [1, 2, 3];
  const rates: number[] = []; // when jobs came

  before(async () => {
    world = await startWorld({ targets: ['executions', 'dispatcher'], modules: [schemaOnly, dispatcher], env: SHORT });
    db = world.db('executions');
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
    automation = await publish(db);
  });
  beforeEach(async () => {
    rates.length = 0;
    const lane = { selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1, workspace };
    await db('lanes').insert(LANES.map((n) => ({ ...lane, lane: n, queue: `q${n}` })));
  });
  afterEach(async () => {
    await peer.vanish();
    for (const table of ['servers', 'ready', 'running', 'attempts', 'executions', 'lanes', 'holds', 'quotas', 'usages'])
      await db(table).delete();
  });
  after(async () => {
    await bus.stop();
    await world.stop();
  });

  async function join(options: Parameters<typeof startPeer>[0] = {}): Promise<void> {
    peer = await startPeer(options);
    await peer.register(db);
    bus.notify(notices.servers);
    await until('the session to open', () => peer.epochs.length > 0);
  }
  const start = async (count: number, lane = 1): Promise<Buffer[]> => {
    const ids = await accept(
      db,
      Array.from({ length: count }, () => ({ automation, lane, workspace })),
    );
    ring(bus, [lane]);
    return ids;
  };
  const ended = async (lane = 1) => Number((await db('executions').count({ n: '*' }).where({ state: 'SUCCEEDED', lane }).first())?.n);
  // The dispatcher has looked at what queues say.
  const loaded = async () => {
    const [mark] = (await start(1, 3)) as [Buffer];
    const before = Date.now();
    await until(
      'the sweep',
      async () => Date.now() - before > 1200 && (await db('ready').where({ execution: mark }).first()) === undefined,
    );
  };

  it('is nothing while they are paused, and goes on when they are not', async () => {
    await join();
    await db('lanes').where({ lane: 1 }).update({ state: 'PAUSED' });
    await start(5);
    await start(1, 2);
    await until('the other queue', async () => (await ended(2)) === 1);
    expect(peer.jobs).to.have.length(1);
    expect(await db('ready').where({ lane: 1 })).to.have.length(5);
    await db('lanes').where({ lane: 1 }).update({ state: 'DRAINING' });
    await until('all to end', async () => (await ended()) === 5);
  });

  it('is nothing while the workspace or everything is halted; a stop ends what runs', async () => {
    await join({ act: (job) => job.start() });
    const row = { workspace, mode: 'MAINTENANCE', reason: '', setter: newBytes(), set_time: db.raw('NOW(6)') };
    await start(1);
    await until('it to run', async () => (await db('running').where({ started: true }).first()) !== undefined);
    await db('holds').insert(row);
    const [waits] = (await start(1)) as [Buffer];
    const before = Date.now();
    await until('two sweeps', () => Date.now() - before > 2200);
    expect(await db('ready').where({ execution: waits }).first()).to.not.equal(undefined);
    expect((await db('running').first()).state).to.equal('RUNNING');
    await db('holds').update({ workspace: EVERYONE, mode: 'STOPPED' });
    await until('it to be asked to stop', () => peer.cancelled.length === 1);
    expect((await db('running').first()).state).to.equal('CANCELLING');
    peer.jobs[0]?.end({ outcome: 4 });
    await until('its end', async () => (await db('executions').where({ state: 'CANCELLED' }).first()) !== undefined);
    expect(peer.jobs).to.have.length(1);
    await db('holds').delete();
    await until('the other one to run', () => peer.jobs.length === 2);
  });

  it('is no more than may run at once, and something as soon as one has ended', async () => {
    let now = 0;
    let most = 0;
    await join({
      slots: 16,
      act(job) {
        job.start();
        most = Math.max(most, ++now);
        setTimeout(() => {
          now -= 1;
          job.end();
        }, 20);
      },
    });
    await db('lanes').where({ lane: 1 }).update({ max_running: 2 });
    await loaded();
    most = 0;
    await start(20);
    await until('all to end', async () => (await ended()) === 20);
    expect(most).to.be.within(1, 2);
    expect(await breaches(db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  it('is no more than may run at once in the workspace, whatever the queue; what it used is counted', async () => {
    let now = 0;
    let most = 0;
    await join({
      slots: 16,
      act(job) {
        job.start();
        most = Math.max(most, ++now);
        setTimeout(() => {
          now -= 1;
          job.end({ logBytes: 7 });
        }, 20);
      },
    });
    await db('quotas').insert({ workspace, running: 2 });
    await loaded();
    most = 0;
    await Promise.all([start(8, 1), start(8, 2)]);
    await until('all to end', async () => (await ended(1)) + (await ended(2)) === 16);
    expect(most).to.be.within(1, 2);
    const used = await until('the count', async () => {
      const row = await db('usages').where({ workspace }).first();
      return row?.log_bytes === 17 * 7 ? row : undefined;
    });
    expect(used.result_bytes).to.be.at.least(17);
    expect(used.run_ms).to.be.above(16);
  });

  it('is no more than the installation lets a workspace run, when it says so', async () => {
    await join();
    const pool = openPool(world.config, `${world.config.databasePrefix}_executions`, 1);
    const gate = openGate(pool, 3);
    await gate.load();
    expect(gate.isCapped(1)).to.equal(true);
    const connection = await pool.getConnection();
    const asks = [1, 2, 3].map((lane) => ({ lane, count: 2, mark: undefined }));
    const { asks: allowed } = await gate.allow(connection, asks);
    await connection.query('ROLLBACK');
    connection.release();
    await pool.end();
    expect(allowed.map(({ lane, count }) => [lane, count])).to.deep.equal([
      [1, 2],
      [2, 1],
    ]);
    expect(await db('quotas').where({ workspace })).to.have.length(1);
  });

  it('is no more than their rate, in bursts of one second', async () => {
    await join({
      slots: 64,
      act(job) {
        rates.push(performance.now());
        job.start();
        job.end();
      },
    });
    await db('lanes').where({ lane: 1 }).update({ rate_per_second: 5 });
    await loaded();
    rates.length = 0;
    await start(12);
    await until('all to end', async () => (await ended()) === 12);
    const [first = 0] = rates;
    expect(rates.filter((at) => at - first < 500)).to.have.length.below(9);
    expect((rates.at(-1) ?? 0) - first).to.be.above(1000);
    expect((await db('lanes').where({ lane: 1 }).first()).tokens).to.be.below(5);
  });

  it('is shared by weight', async () => {
    await join();
    const pool = openPool(world.config, `${world.config.databasePrefix}_executions`, 1);
    await db('lanes').where({ lane: 2 }).update({ weight: 3 });
    const gate = openGate(pool);
    expect(gate.shares([1, 2], 12, 64)).to.deep.equal([6, 6]);
    await gate.load();
    await pool.end();
    expect(gate.shares([1, 2], 12, 64)).to.deep.equal([3, 9]);
    expect(gate.shares([1, 3], 12, 64)).to.deep.equal([6, 6]);
    expect(gate.shares([1, 2], 4000, 64)).to.deep.equal([64, 192]);
    expect(gate.shares([1, 2, 3], 2, 64)).to.deep.equal([1, 1, 1]);
  });

  it('fills a rate up to one second', () => {
    expect(refill({ tokens: null, seconds: 0, rate: 5 })).to.equal(5);
    expect(refill({ tokens: 1, seconds: 0.5, rate: 4 })).to.equal(3);
    expect(refill({ tokens: 1, seconds: 60, rate: 4 })).to.equal(4);
    expect(refill({ tokens: 0, seconds: 2, rate: 0.25 })).to.equal(0.5);
    expect(refill({ tokens: 0, seconds: 60, rate: 0.25 })).to.equal(1);
    expect(refill({ tokens: 2, seconds: -1, rate: 4 })).to.equal(2);
  });
});
