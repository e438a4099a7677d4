// Counts what attempts used, from the commits that ended them: in memory, and written together once a second. A crash loses a second; the count of
// what was kept about attempts puts it right (usage-system.ts). Written at most once: what may have been written already is not written again.
import type { Pool } from '#platform/db.ts';
import { isDatabaseAway } from '#platform/faults.ts';
import type { Logger } from '#platform/log.ts';
import { every } from '#platform/pause.ts';
import type { Leave } from '../engine/finish.ts';
import { format, hex } from '../engine/sql.ts';

export interface UsageCounter {
  count(leaves: readonly Leave[]): void;
  stop(): Promise<void>;
}
export interface Used {
  workspace: Buffer;
  day: string; // in UTC
  logBytes: number;
  runMs: number;
  resultBytes: number;
}

const EVERY_MS = 1000;
const COLUMNS = ['log_bytes', 'run_ms', 'result_bytes'];

export function openUsage({ pool, log }: { pool: Pool; log: Logger }): UsageCounter {
  let counts = new Map<string, Used>();

  function add(one: Used): void {
    const key = `${hex(one.workspace)}.${one.day}`;
    const sum = counts.get(key) ?? { ...one, logBytes: 0, runMs: 0, resultBytes: 0 };
    sum.logBytes += one.logBytes;
    sum.runMs += one.runMs;
    sum.resultBytes += one.resultBytes;
    counts.set(key, sum);
  }

  async function write(): Promise<void> {
    if (counts.size === 0) return;
    const all = [...counts.values()];
    counts = new Map();
    await pool.query(additionOf(all)).catch((error) => {
      log.warn({ error }, 'what was used is written later');
      if (!isDatabaseAway(error)) all.forEach(add);
    });
  }

  const stop = every(EVERY_MS, write, log);
  return {
    count(leaves) {
      for (const leave of leaves) usedBy(leave).forEach(add);
    },
    async stop() {
      await stop();
      await write();
    },
  };
}

// In the order of the keys, so that two dispatchers do not wait for each other in a ring.
const additionOf = (all: readonly Used[]): string =>
  format(
    `INSERT INTO usages (workspace, day, ${COLUMNS.join(', ')}) VALUES ?
      ON DUPLICATE KEY UPDATE ${COLUMNS.map((column) => `${column} = ${column} + VALUES(${column})`).join(', ')}`,
    [
      all
        .map(({ workspace, day, logBytes, runMs, resultBytes }) => [workspace, day, logBytes, runMs, resultBytes])
        .sort((a, b) => Buffer.compare(a[0] as Buffer, b[0] as Buffer) || ((a[1] as string) < (b[1] as string) ? -1 : 1)),
    ],
  );

// Log and time count for the day of the end; a result for that on which its execution was made, with which it goes.
export function usedBy({ row, told, verdict, start, endTime, usage }: Leave): Used[] {
  const isStarted = row.started === 1 || start !== undefined;
  const first = told.start_time && told.start_time > row.claim_time ? told.start_time : row.claim_time;
  const runMs = isStarted ? Math.max(0, endTime.getTime() - (start?.time ?? first).getTime()) : 0;
  const output = 'output' in verdict && verdict.output ? Buffer.byteLength(verdict.output) : 0;
  const of = (day: Date, counted: Partial<Used>): Used => ({
    ...{ workspace: row.workspace, day: day.toISOString().slice(0, 10), logBytes: 0, runMs: 0, resultBytes: 0 },
    ...counted,
  });
  const logBytes = usage?.logBytes ?? 0;
  return [
    ...(runMs > 0 || logBytes > 0 ? [of(endTime, { runMs, logBytes })] : []),
    ...(output > 0 ? [of(told.create_time, { resultBytes: output })] : []),
  ];
}
