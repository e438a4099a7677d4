// What is done to a rig in a round: the steps of a plan one after the other, or the power of its disk cut off.
import { createConnection } from 'mysql2/promise';
import { openBus } from '#platform/bus.ts';
import { openLog } from '#platform/log.ts';
import { ring, untilRung } from '../../services/executions/engine/tickets.ts';
import { until } from '../world.ts';
import { perform } from './faults.ts';
import { PARTS, type Step } from './plan.ts';
import type { RecordFile } from './record.ts';
import type { Rig } from './rig.ts';

const SOME_MS = 4000; // of load before a power cut, which comes soon after the schemas were made
const FULL_MS = 4000;
const RING_MS = 50;
const STORES_MS = 60_000;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export const carryOut = (rig: Rig, plan: readonly Step[], record: RecordFile): Promise<void> =>
  perform(rig, plan, {
    begun: ({ what, ...step }) => record.note({ what: 'fault', fault: what, ...step }),
    recovered: (recovery) => record.note({ what: 'recovered', ...recovery }),
  });

// The disk keeps what had reached it and nothing else; every process is gone; then the stack is started again on what is left.
// Unflushed: as if the database did not wait for its disk. Then the checker must find something.
export async function cutPower(rig: Rig, { isUnflushed }: { isUnflushed: boolean }): Promise<void> {
  const { stack, disk } = rig;
  if (!disk) throw new Error(`no power can be cut here: ${rig.whyNoDisk}`);
  if (isUnflushed) {
    const connection = await createConnection(stack.wiring.databaseUrl);
    await connection.query('SET GLOBAL innodb_flush_log_at_trx_commit = 0');
    await connection.query('SET GLOBAL innodb_flush_log_at_timeout = 60');
    await connection.end();
  }
  await sleep(SOME_MS);
  disk.losePower();
  await Promise.all(PARTS.map((part) => stack.kill(part)));
  await stack.stop();
  await disk.unmount();
  disk.mount();
  await rig.again();
}

// Database and broker can write nothing for some seconds, although they are to. The database is killed meanwhile, and must not recover before there
// is room. The broker stores nothing from then on; nobody starts it again for the stack, which is to find out by itself.
export async function fillDisk({ stack, disk, ...rig }: Rig): Promise<void> {
  if (!disk) throw new Error(`no disk can be filled here: ${rig.whyNoDisk}`);
  const bus = openBus({ natsUrl: stack.wiring.natsUrl, natsPrefix: stack.wiring.natsPrefix }, openLog('silent'));
  await bus.connection();
  await sleep(SOME_MS);
  disk.fill();
  const killed = sleep(FULL_MS / 2).then(() => stack.kill('database'));
  for (const end = performance.now() + FULL_MS; performance.now() < end; await sleep(RING_MS))
    ring(
      bus,
      Array.from({ length: 100 }, (_, index) => 1_000_000 + index),
    ); // lanes that are not there
  await killed;
  disk.free();
  await until('the broker to store something again', () => untilRung(bus, 1_000_000).then(() => true, () => undefined), STORES_MS); // biome-ignore format: a probe
  await bus.stop();
}
