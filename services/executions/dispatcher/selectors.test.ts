import { expect } from 'chai';
import type { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { ControlServiceService } from '#gen/millrace/executions/v1/control_service.ts';
import { Cause_Reason as Reason } from '#gen/millrace/executions/v1/explanation.ts';
import { FleetServiceService } from '#gen/millrace/executions/v1/fleet_service.ts';
import { Queue } from '#gen/millrace/executions/v1/queue.ts';
import { QueueServiceService } from '#gen/millrace/executions/v1/queue_service.ts';
import { openBus } from '#platform/bus.ts';
import { openPool, schemaOf } from '#platform/db.ts';
import { fromBytes, newBytes, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { until } from '../../../tests/world.ts';
import * as notices from '../engine/notices.ts';
import { caught } from '../fixture.test.ts';
import { take } from './claim-store.ts';
import { type Lab, startLab, stateOf } from './fixture.test.ts';
import { type Peer, startPeer } from './peer.test.ts';

const EU = { region: 'eu' };
const US = { region: 'us' };

describe('selectors', function () {
  this.timeout(60_000);
  let lab: Lab;
  let peers: Peer[] = [];
  const db = () => lab.world.db('executions');

  async function join(labels: Record<string, string>, options: Parameters<typeof startPeer>[0] = {}): Promise<Peer> {
    const peer = await startPeer({ ...options, labels });
    peers.push(peer);
    await peer.register(db());
    const bus = openBus(lab.world.config, openLog('silent'));
    await bus.connection();
    bus.notify(notices.servers);
    await bus.stop();
    return peer;
  }
  const publish = (selector: Record<string, string>, rest: Partial<AutomationSpec> = {}) => lab.publish({ selector, ...rest });
  const startMany = (count: number, automation: string) => Promise.all(Array.from({ length: count }, () => lab.start(automation)));
  const ranOn = ({ jobs }: Peer) => jobs.map(({ job }) => job.executionId).sort();
  const first = async (id: string) => (await lab.world.as(lab.person, ControlServiceService).explainExecution({ id })).causes[0];
  async function leave(): Promise<void> {
    for (const peer of peers) await peer.vanish();
    peers = [];
    await db()('servers').delete();
  }

  describe('with one dispatcher', () => {
    before(async () => {
      lab = await startLab();
    });
    afterEach(leave);
    after(() => lab.stop());

    it('keep executions from servers that do not match, and say so, until one comes that does', async () => {
      const plain = await join({});
      const us = await join({ ...US, gpu: 'true' });
      const automation = await publish(EU);
      const waiting = await startMany(3, automation);
      const free = await startMany(10, await publish({}));
      for (const id of free) await lab.ended(id);
      const cause = await until('the reason', async () => {
        const found = await first(waiting[0] as string);
        return found?.servers.length === 2 ? found : undefined;
      });
      expect(cause).to.deep.include({ reason: Reason.NO_MATCHING_SERVER, selector: EU });
      expect(cause?.servers).to.have.deep.members([
        { labels: {}, serverCount: 1 },
        { labels: { gpu: 'true', region: 'us' }, serverCount: 1 },
      ]);
      expect(cause?.message).to.include('region=eu').and.to.include('gpu=true, region=us').and.to.include('no labels');
      expect((await lab.get(waiting[0] as string)).waitingReason).to.equal('NO_MATCHING_SERVER');
      expect([...ranOn(plain), ...ranOn(us)].sort()).to.deep.equal([...free].sort());
      const eu = await join({ ...EU, gpu: 'true' }, { slots: 1 });
      for (const id of waiting) expect(stateOf(await lab.ended(id))).to.equal('SUCCEEDED');
      expect(ranOn(eu)).to.deep.equal([...waiting].sort());
    });

    it('start at once when their server is there, between others', async () => {
      const all = [await join({}), await join(EU), await join(US)] as const;
      const [eu, us, both, any] = [await publish(EU), await publish(US), await publish({ ...EU, ...US }), await publish({})];
      const ids = await Promise.all([startMany(20, eu), startMany(20, us), startMany(20, any)]);
      expect(ids.flat()).to.have.length(60);
      const never = await lab.start(both === '' ? '' : await publish({ ...EU, gpu: 'no' }));
      for (const id of ids.flat()) await lab.ended(id);
      const wrong = (peer: Peer, those: readonly string[]) => ranOn(peer).filter((id) => those.includes(id));
      expect([...wrong(all[0], ids[0]), ...wrong(all[0], ids[1]), ...wrong(all[1], ids[1]), ...wrong(all[2], ids[0])]).to.deep.equal([]);
      expect(stateOf(await lab.get(never))).to.equal('QUEUED');
    });

    it('of the queue hold as well, for new executions; a contradiction is refused', async () => {
      const queues = lab.world.as(lab.person, QueueServiceService);
      const set = (selector: Record<string, string>) =>
        queues.updateQueue({ queue: Queue.fromPartial({ name: 'pool', selector }), updateMask: ['selector'] });
      const [plain, eu, gpu] = [await join({}), await join(EU), await join({ ...EU, gpu: 'true' })];
      const automation = await publish({ gpu: 'true' }, { queue: 'pool' });
      expect(await set(EU)).to.deep.include({ name: 'pool', selector: EU });
      const ids = await startMany(5, automation);
      for (const id of ids) await lab.ended(id);
      expect([ranOn(plain), ranOn(eu), ranOn(gpu)]).to.deep.equal([[], [], [...ids].sort()]);
      expect(await caught(lab.start(await publish(US, { queue: 'pool' })))).to.deep.include({
        reason: 'SELECTOR_CONFLICT',
        metadata: { label: 'region', queue: 'pool' },
      });
      expect(await set({})).to.deep.include({ selector: {} });
      expect(await queues.getQueue({ name: 'pool' })).to.deep.include({ selector: {}, queuedCount: 0, runningCount: 0 });
    });

    it('share the settings of their queue: it is paused as a whole, and so is what may run', async () => {
      const queues = lab.world.as(lab.person, QueueServiceService);
      await queues.updateQueue({ queue: Queue.fromPartial({ name: 'narrow', maxRunning: 2 }), updateMask: [] });
      const [eu, us] = [await publish(EU, { queue: 'narrow' }), await publish(US, { queue: 'narrow' })];
      await queues.pauseQueue({ name: 'narrow' });
      const ids = (await Promise.all([startMany(6, eu), startMany(6, us)])).flat();
      expect(await queues.getQueue({ name: 'narrow' })).to.include({ queuedCount: 12, maxRunning: 2 });
      let now = 0;
      let most = 0;
      const act: Parameters<typeof startPeer>[0] = {
        act(job) {
          job.start();
          most = Math.max(most, ++now);
          setTimeout(() => {
            now -= 1;
            job.end();
          }, 20);
        },
      };
      const some = [await join(EU, act), await join(US, act)];
      await until('the sessions', () => some.every(({ epochs }) => epochs.length > 0));
      const other = await lab.start(await publish(EU));
      await lab.ended(other);
      expect(some.flatMap(ranOn)).to.deep.equal([other]);
      await until('the limit to be read', async () => (await db()('lanes').where({ queue: 'narrow', max_running: 2 })).length === 3);
      most = 0;
      await queues.resumeQueue({ name: 'narrow' });
      for (const id of ids) await lab.ended(id);
      expect(most).to.be.within(1, 2);
    });

    it('hold in the claim itself: a lane with labels gives nothing to who does not know them', async () => {
      await join({});
      const id = toBytes('execution', await lab.start(await publish(EU)));
      const { lane } = await db()('ready').where({ execution: id }).first();
      const pool = openPool(lab.world.config, schemaOf(lab.world.config, 'executions'), 1);
      const connection = await pool.getConnection();
      const ask = { lane, count: 5, mark: undefined };
      const found = async (selector?: typeof EU) => {
        const { sets } = await take(connection, newBytes(), [newBytes()], [{ ...ask, selector }], false);
        await connection.query('ROLLBACK');
        return sets.flat().map(({ execution }) => execution.toString('hex'));
      };
      expect(await found()).to.deep.equal([]);
      expect(await found(EU)).to.include(id.toString('hex'));
      connection.release();
      await pool.end();
    });

    it('are matched by what an automation server is started with', async () => {
      const runner = await lab.runner({ MILLRACE_AUTOMATION_LABELS: 'region=eu, gpu=true' });
      const waits = await lab.start(await publish(US));
      const done = await lab.ended(await lab.start(await publish(EU, { source: 'def main(): return 7' })), 30_000);
      expect([stateOf(done), done.output]).to.deep.equal(['SUCCEEDED', 7]);
      const { servers } = await lab.world.as(lab.person, FleetServiceService).listServers({});
      expect(servers.find(({ id }) => id === runner.id)).to.deep.include({ labels: { region: 'eu', gpu: 'true' }, slots: 8 });
      expect(stateOf(await lab.get(waits))).to.equal('QUEUED');
      await runner.stop();
    });

    it('aside, a drained server is given nothing until it is resumed', async () => {
      const admin = { ...lab.person, scopes: [...lab.person.scopes, 'platform.manage'] };
      const fleet = lab.world.as(admin, FleetServiceService);
      const [eu, other] = [await join(EU), await join({})];
      const id = fromBytes('server', eu.id);
      const automation = await publish(EU);
      await lab.ended(await lab.start(automation));
      const { servers } = await lab.world.as(lab.person, FleetServiceService).listServers({});
      expect(servers.map((one) => one.labels)).to.deep.equal([EU, {}]);
      expect(servers[0]).to.deep.include({ id, slots: 8, credits: 8, runningCount: 0, draining: false, stopping: false, sandboxTier: 2 });
      expect(await fleet.drainServer({ id })).to.include({ draining: true, credits: 0 });
      const waits = await lab.start(automation);
      const free = await startMany(12, await publish({}));
      for (const one of free) await lab.ended(one);
      expect(ranOn(other)).to.deep.equal([...free].sort());
      await until('the reason', async () => (await first(waits))?.reason === Reason.NO_MATCHING_SERVER);
      expect(await fleet.resumeServer({ id })).to.include({ draining: false });
      await lab.ended(waits);
      expect(ranOn(eu)).to.include(waits);
      expect(await caught(fleet.getServer({ id: fromBytes('server', Buffer.alloc(16, 1)) }))).to.include({ reason: 'RESOURCE_NOT_FOUND' });
      expect(await caught(lab.world.as(lab.person, FleetServiceService).drainServer({ id }))).to.include({ reason: 'PERMISSION_MISSING' });
    });
  });

  it('find their server whichever dispatcher has it', async () => {
    lab = await startLab({ targets: ['executions'] });
    await Promise.all([lab.dispatcher(), lab.dispatcher()]);
    for (let index = 0; index < 6; index += 1) await join({});
    const eu = await join(EU);
    await until('the servers to be shared', async () => (await db()('servers').distinct('owner').whereNotNull('owner')).length === 2);
    const ids: string[] = [];
    for (let index = 0; index < 6; index += 1) {
      const [picky, plain] = [await lab.start(await publish({ ...EU })), await lab.start(await publish({}))];
      for (const id of [picky, plain]) await lab.ended(id);
      ids.push(picky);
    }
    expect(ranOn(eu)).to.include.members(ids);
    await leave();
    await lab.stop();
  });
});
