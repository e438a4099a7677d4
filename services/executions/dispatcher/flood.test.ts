import { expect } from 'chai';
import { openBus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { newBytes, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { startWorld, until, type World } from '../../../tests/world.ts';
import { accept, publish, schemaOnly } from '../engine/fixture.test.ts';
import * as notices from '../engine/notices.ts';
import { ring } from '../engine/tickets.ts';
import { SHORT } from './fixture.test.ts';
import { module as dispatcher } from './module.ts';
import { startPeer } from './peer.test.ts';

const FEW = 20; // executions of the quiet workspace
const USUAL = 40; // of the other one
const FLOOD = 100 * USUAL;
const SLOTS = 4;

// How long an execution waits is told in turns: how many others start between its acceptance and its start.
describe('a workspace that floods the queue', function () {
  this.timeout(60_000);
  let world: World;
  let db: Db;
  let automation: Buffer;
  let bus: ReturnType<typeof openBus>;
  before(async () => {
    world = await startWorld({ targets: ['executions', 'dispatcher'], modules: [schemaOnly, dispatcher], env: SHORT });
    db = world.db('executions');
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
    automation = await publish(db);
  });
  after(async () => {
    await bus.stop();
    await world.stop();
  });

  // One workspace starts so many, then another one a few. Answers how many starts each of the few waited for.
  async function waits(lane: number, many: number): Promise<number[]> {
    const held: (() => void)[] = [];
    let isOpen = false; // nothing ends before everything is accepted
    const peer = await startPeer({
      slots: SLOTS,
      act(job) {
        job.start();
        if (isOpen) setTimeout(() => job.end(), 5);
        else held.push(() => job.end());
      },
    });
    await peer.register(db);
    bus.notify(notices.servers);
    await until('the session to open', () => peer.epochs.length > 0);
    const [loud, quiet] = [newBytes(), newBytes()];
    const own = { queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 };
    await db('lanes').insert([
      { ...own, lane, workspace: loud },
      { ...own, lane: lane + 1, workspace: quiet },
    ]);
    const start = async (count: number, workspace: Buffer, at: number) => {
      const ids = await accept(
        db,
        Array.from({ length: count }, () => ({ automation, lane: at, workspace })),
      );
      ring(bus, [at]);
      return ids;
    };
    await start(many, loud, lane);
    await until('the loud one to run', () => peer.jobs.length >= SLOTS);
    const before = peer.jobs.length;
    const few = new Set((await start(FEW, quiet, lane + 1)).map((id) => id.toString('hex')));
    isOpen = true;
    for (const end of held) end();
    const places = () =>
      peer.jobs.flatMap(({ job }, index) => (few.has(toBytes('execution', job.executionId).toString('hex')) ? [index - before] : []));
    await until('the few to start', () => places().length === FEW, 30_000);
    await peer.vanish();
    for (const table of ['servers', 'ready', 'running', 'attempts', 'executions']) await db(table).delete();
    return places();
  }
  const mean = (numbers: readonly number[]): number => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;

  it('100 times as much makes another one wait for less than twice as many starts', async () => {
    const beside = await waits(1, USUAL);
    const flooded = await waits(3, FLOOD);
    expect(mean(flooded)).to.be.below(2 * mean(beside));
    expect(Math.max(...flooded)).to.be.below(2 * Math.max(...beside));
  });
});
