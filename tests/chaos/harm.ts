// What is done to a rig in a round: the steps of a plan one after the other, or the power of its disk cut off.
import { createConnection } from 'mysql2/promise';
import { perform } from './faults.ts';
import { PARTS, type Step } from './plan.ts';
import type { RecordFile } from './record.ts';
import type { Rig } from './rig.ts';

const SOME_MS = 4000; // of load before a power cut, which comes soon after the schemas were made
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
