import { expect } from 'chai';
import { Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { type Bus, openBus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { fromBytes, newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { until } from '../../../tests/world.ts';
import { accept, breaches, publish } from '../engine/fixture.test.ts';
import { encodeTaken, type Taken } from '../engine/loans.ts';
import * as notices from '../engine/notices.ts';
import { type Lab, startLab } from './fixture.test.ts';
import { type Peer, type PeerJob, startPeer } from './peer.test.ts';

describe('what takes the places that a dispatcher lends', function () {
  this.timeout(60_000);
  let lab: Lab;
  let db: Db;
  let bus: Bus;
  let peer: Peer;
  let told = 0;

  before(async () => {
    lab = await startLab();
    db = lab.world.db('executions');
    bus = openBus(lab.world.config, openLog('silent'));
    await bus.connection();
    bus.onNotice(notices.taken('*'), () => {
      told += 1;
    });
  });
  afterEach(async () => {
    await peer.vanish();
    for (const table of ['servers', 'ready', 'running', 'attempts', 'executions']) await db(table).delete();
  });
  after(async () => {
    await bus.stop();
    await lab.stop();
  });

  async function join(options: Parameters<typeof startPeer>[0] = {}): Promise<void> {
    peer = await startPeer(options);
    await peer.register(db);
    bus.notify(notices.servers);
    await until('the session to open', () => peer.epochs.length > 0);
  }
  // As another process leaves it that has accepted it by a loan and told nothing.
  async function untold(): Promise<{ id: Buffer; taken: Taken; owner: Buffer }> {
    const automation = await publish(db);
    const [id] = (await accept(db, [{ automation }])) as [Buffer];
    const claimId = newBytes();
    await db.transaction(async (tx) => {
      const { lane, priority, attempt, losses, expire_time } = await tx('ready').where({ execution: id }).first();
      const { workspace } = await tx('executions').where({ id }).first();
      await tx('ready').where({ execution: id }).delete();
      const claim = { execution: id, workspace, claim_id: claimId, attempt, losses, server: peer.id, lane, priority };
      const deadline = tx.raw('NOW(6) + INTERVAL 1 HOUR');
      await tx('running').insert({ ...claim, state: 'RUNNING', started: false, claim_time: tx.raw('NOW(6)'), deadline, expire_time });
    });
    const row = await db('executions').where({ id }).first();
    const { claim_time: now, lane, priority } = await db('running').where({ execution: id }).first();
    const fresh = { lane, priority, tag: 1, execution: id, workspace: row.workspace, automation, revision: row.revision };
    const rest = { creator: row.creator, retry_of: null, labels: null, input: null, traceparent: null, create_time: row.create_time };
    const { owner } = await db('servers').where({ id: peer.id }).first();
    return { id, owner, taken: { server: peer.id, now, claimIds: [claimId], fresh: [{ ...fresh, ...rest }] } };
  }
  const tell = (owner: Buffer, taken: Taken) => bus.notify(notices.taken(fromBytes('dispatcher', owner)), encodeTaken(taken));
  const ended = (id: Buffer) => until('it to end', async () => (await db('executions').where({ id }).first()).end_time, 20_000);
  const claimOf = ({ job }: PeerJob) => job.claimId.toString('hex');

  it('starts without a turn, one after the other and many at once, each once', async () => {
    await join();
    const automation = await lab.publish({ source: 'pass' });
    await lab.ended(await lab.start(automation)); // the automation is remembered from now on
    told = 0;
    let runs = 1;
    await until('places to be taken', async () => {
      expect((await lab.ended(await lab.start(automation))).state).to.equal(State.SUCCEEDED);
      runs += 1;
      return told >= 10; // they are lent every second, and for a while only
    }, 30_000); // biome-ignore format: a probe
    const ids = await Promise.all(Array.from({ length: 60 }, () => lab.start(automation)));
    for (const id of ids) expect((await lab.ended(id)).state).to.equal(State.SUCCEEDED);
    expect(peer.jobs).to.have.length(runs + ids.length);
    expect(new Set(peer.jobs.map(({ job }) => job.executionId)).size).to.equal(runs + ids.length);
    expect(await breaches(db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  it('starts when its notice comes, and is given back when that never does', async () => {
    await join();
    const one = await untold();
    tell(one.owner, one.taken);
    await ended(one.id);
    expect(peer.jobs.map(claimOf)).to.deep.equal([one.taken.claimIds[0]?.toString('hex')]);
    tell(one.owner, one.taken); // doubled
    await pause(300);
    expect(peer.jobs).to.have.length(1);
    const other = await untold();
    await ended(other.id);
    expect(peer.jobs).to.have.length(2);
    expect(claimOf(peer.jobs[1] as PeerJob)).to.not.equal(other.taken.claimIds[0]?.toString('hex'));
    expect(await db('attempts').where({ execution: other.id })).to.have.length(1);
    tell(other.owner, other.taken); // too late
    await pause(500);
    expect(peer.jobs).to.have.length(2);
  });

  it('is given back when no place is left by then, and no attempt is used', async () => {
    const held: PeerJob[] = [];
    const act = (job: PeerJob): void => {
      job.start();
      held.push(job);
    };
    await join({ slots: 1, act });
    const first = await untold();
    tell(first.owner, first.taken);
    await until('the only place to be taken', () => held.length === 1);
    const second = await untold();
    tell(second.owner, second.taken);
    await until('it to be given back', async () => (await db('ready').where({ execution: second.id }).first()) !== undefined);
    expect(peer.jobs).to.have.length(1);
    held[0]?.end();
    await until('the second one', () => held.length === 2);
    held[1]?.end();
    await ended(second.id);
    expect(await db('attempts').where({ execution: second.id })).to.have.length(1);
  });
});
