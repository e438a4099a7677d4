// The statements of the intake. The fence comes first: the present owner of the server, then the present claim, both read with a lock.
import type { Line, ProgressReport } from '#gen/millrace/runner/v1/job.ts';
import { insertStarted } from '../engine/attempts.ts';
import { selectTold, type Told } from '../engine/ended.ts';
import { lockRunning, type Progress, type Running, type Start } from '../engine/finish.ts';
import { encodeLines, PLAIN } from '../engine/log-codec.ts';
import { epochsOf, type Held, lockOwned, type Owned, unlessOwned } from '../engine/owned.ts';
import { type Connection, format, hex, insert, rows, unless } from '../engine/sql.ts';

// What changes about an execution that stays in running.
export interface Stay {
  row: Running;
  start: Start | undefined;
  progress: ProgressReport | undefined;
  lineCount: number;
}
export interface Fence {
  epochs: ReadonlyMap<string, number>; // of the servers that this dispatcher owns
  running: ReadonlyMap<string, Running>;
  told: readonly Told[];
}

const MAX_MESSAGE = 500;

// Begins a transaction in which nobody else can become the owner of the servers, nor end or claim the executions. Of those that are about to leave
// running the history is read as well.
export async function lock(
  connection: Connection,
  owner: Buffer,
  servers: readonly Buffer[],
  executions: readonly Buffer[],
  leaving: readonly Buffer[],
): Promise<Fence> {
  const fence = ['BEGIN', lockOwned(owner, servers), lockRunning(executions)];
  const results = await rows(connection, leaving.length > 0 ? [...fence, selectTold(leaving)] : fence);
  const [, owned, running, told = []] = results as [unknown, Owned[], Running[], Told[]?];
  return { epochs: epochsOf(owned), running: new Map(running.map((row) => [hex(row.execution), row])), told };
}

// The fence for what was remembered, at the beginning of a transaction: takes the same locks, takes the claims out of running, and fails with UNLIKE
// unless all of it was as they left it.
export function takeAlike(owner: Buffer, servers: readonly Held[], claims: readonly { execution: Buffer; claim_id: Buffer }[]): string[] {
  const executions = claims.map(({ execution }) => execution).sort((a, b) => Buffer.compare(a, b));
  const areFirst = format('(SELECT COUNT(*) FROM executions WHERE id IN (?) AND version = 1) = ?', [executions, executions.length]);
  return [
    unlessOwned(owner, servers),
    format("DELETE FROM running WHERE execution IN (?) AND claim_id IN (?) AND state = 'RUNNING' AND started = 0 AND line_count = 0", [
      executions,
      claims.map(({ claim_id }) => claim_id),
    ]),
    unless(`ROW_COUNT() = ${claims.length} AND ${areFirst}`),
  ];
}

export function chunks(written: readonly { row: Running; lines: readonly Line[] }[]): string[] {
  const values = written
    .filter(({ lines }) => lines.length > 0)
    .map(({ row, lines }) => {
      const body = encodeLines(lines);
      return [row.execution, row.attempt, row.line_count, lines.length, body.length, PLAIN, body];
    });
  return insert('log_chunks', 'execution, attempt, first_seq, count, bytes, codec, body', values);
}

export function stays(staying: readonly Stay[]): string[] {
  const started = staying.flatMap(({ row, start }) => (start ? [{ row, start }] : []));
  return [
    ...staying.flatMap(update),
    ...insertStarted(started),
    ...started.map(({ row, start }) =>
      format('UPDATE executions SET start_time = COALESCE(start_time, ?), attempt_count = ? WHERE id = ?', [
        start.time,
        row.attempt,
        row.execution,
      ]),
    ),
  ];
}

// The time that an attempt has begins with its start, not with its claim.
const FROM_START =
  "started = 1, deadline = IF(state = 'RUNNING', deadline + INTERVAL TIMESTAMPDIFF(MICROSECOND, claim_time, NOW(6)) MICROSECOND, deadline)";

function update({ row, start, progress, lineCount }: Stay): string[] {
  const parts = [
    ...(start ? [FROM_START] : []),
    ...(lineCount === row.line_count ? [] : [format('line_count = ?', [lineCount])]),
    ...(progress ? [format('progress_fraction = ?, progress_message = ?', Object.values(progressOf(progress)))] : []),
  ];
  return parts.length === 0 ? [] : [format(`UPDATE running SET ${parts.join(', ')} WHERE execution = ?`, [row.execution])];
}

export const progressOf = ({ fraction, message }: ProgressReport): Progress => ({
  fraction: Number.isFinite(fraction) ? Math.min(Math.max(fraction, 0), 1) : 0,
  message: message.slice(0, MAX_MESSAGE),
});
