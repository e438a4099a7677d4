// The statements that keep attempts: those that started.
import type { Leave, Running, Start, Usage } from './finish.ts';
import type { Verdict } from './machine.ts';
import { format, insert } from './sql.ts';

const NO_USAGE: Usage = { cpuSeconds: null, peakMemoryKib: null, logBytes: null, logCount: null, logSha256: null, droppedBytes: null };

const ATTEMPT = `execution, number, state, claim_id, server, sandbox_tier, isolation, limits, start_time, end_time, error, cpu_seconds,
  peak_memory_kib, log_bytes, log_count, log_sha256, dropped_bytes`;

// The rows of attempts that end, written with the start, or now when start and end come together.
export const endAttempts = (leaves: readonly Leave[]): string[] => [
  ...insert('attempts', ATTEMPT, leaves.filter(isNew).map(attemptOf)),
  ...leaves.flatMap(attemptEnd),
];

const isNew = ({ start }: Leave): boolean => start !== undefined;

function attemptOf({ row, verdict, start, endTime, usage = NO_USAGE }: Leave): unknown[] {
  const { state, error } = attemptEndOf(verdict);
  return [...startOf(row, start as Start, state), endTime, error, ...usageOf(usage)];
}

const startOf = (row: Running, start: Start, state: string): unknown[] => [
  row.execution,
  row.attempt,
  state,
  row.claim_id,
  row.server,
  start.tier,
  start.isolation,
  JSON.stringify(start.limits),
  start.time,
];

// The row of an attempt that goes on.
export const insertStarted = (started: readonly { row: Running; start: Start }[]): string[] =>
  insert('attempts', ATTEMPT, started.map(startedOf));

const startedOf = ({ row, start }: { row: Running; start: Start }): unknown[] => [
  ...startOf(row, start, 'RUNNING'),
  ...[null, null], // end and error
  ...usageOf(NO_USAGE),
];

function attemptEnd({ row, verdict, start, endTime, usage = NO_USAGE }: Leave): string[] {
  if (start || row.started === 0) return [];
  const { state, error } = attemptEndOf(verdict);
  const sql = `UPDATE attempts SET state = ?, end_time = GREATEST(start_time, ?), error = ?, cpu_seconds = ?, peak_memory_kib = ?, log_bytes = ?,
    log_count = ?, log_sha256 = ?, dropped_bytes = ? WHERE execution = ? AND number = ?`;
  return [format(sql, [state, endTime, error, ...usageOf(usage), row.execution, row.attempt])];
}

function attemptEndOf(verdict: Verdict): { state: string; error: string | null } {
  if (verdict.to === 'QUEUED' || !verdict.attempt) throw new Error('an attempt that started cannot be given back unused');
  return { state: verdict.attempt, error: verdict.error ? JSON.stringify(verdict.error) : null };
}

const usageOf = (usage: Usage): unknown[] => [
  usage.cpuSeconds,
  usage.peakMemoryKib,
  usage.logBytes,
  usage.logCount,
  usage.logSha256,
  usage.droppedBytes,
];
