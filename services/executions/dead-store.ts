// Executions that were given up, as their workspace's administrators look after them.
import type { Pool, ResultSetHeader, RowDataPacket } from '#platform/db.ts';

export interface DeadRow {
  execution: Buffer;
  automation: Buffer;
  state: 'DEAD' | 'REDRIVEN' | 'DISCARDED';
  create_time: Date;
  settle_time: Date | null;
  settler: Buffer | null;
  redriven_as: Buffer | null; // null while it is being redriven
  error: unknown;
  attempt_count: number;
}
export interface DeadFilter {
  state: DeadRow['state'];
  automation: Buffer | undefined;
  from: Date | undefined;
  to: Date | undefined;
  before: Buffer | undefined; // only those with a lower id
  limit: number;
}
type Read = DeadRow & RowDataPacket;

const SELECT = `SELECT d.execution, d.automation, d.state, d.create_time, d.settle_time, d.settler, d.redriven_as, e.error, e.attempt_count
  FROM dead_executions d JOIN executions e ON e.id = d.execution`;
const REDRIVE_SECONDS = 60; // a redrive that takes longer was cut off

// The newest executions first.
export async function list(pool: Pool, workspace: Buffer, { state, automation, from, to, before, limit }: DeadFilter): Promise<DeadRow[]> {
  const parts = [pool.format('d.workspace = ? AND d.state = ?', [workspace, state])];
  if (automation) parts.push(pool.format('d.automation = ?', [automation]));
  if (from) parts.push(pool.format('d.create_time >= ?', [from]));
  if (to) parts.push(pool.format('d.create_time < ?', [to]));
  if (before) parts.push(pool.format('d.execution < ?', [before]));
  const [rows] = await pool.query<Read[]>(`${SELECT} WHERE ${parts.join(' AND ')} ORDER BY d.execution DESC LIMIT ${limit}`);
  return rows;
}

export async function find(pool: Pool, workspace: Buffer, execution: Buffer): Promise<DeadRow | undefined> {
  const [[row]] = await pool.query<Read[]>(`${SELECT} WHERE d.workspace = ? AND d.execution = ?`, [workspace, execution]);
  return row;
}

// Whether it was DEAD until now.
export async function discard(pool: Pool, workspace: Buffer, execution: Buffer, settler: Buffer): Promise<boolean> {
  const sql = `UPDATE dead_executions SET state = 'DISCARDED', settle_time = NOW(6), settler = ?
    WHERE workspace = ? AND execution = ? AND state = 'DEAD'`;
  return changedOne(pool, sql, [settler, workspace, execution]);
}

// Whether the caller alone may redrive it now.
export async function begin(pool: Pool, workspace: Buffer, execution: Buffer, settler: Buffer): Promise<boolean> {
  const sql = `UPDATE dead_executions SET state = 'REDRIVEN', settle_time = NOW(6), settler = ? WHERE workspace = ? AND execution = ?
    AND (state = 'DEAD' OR (state = 'REDRIVEN' AND redriven_as IS NULL AND settle_time < NOW(6) - INTERVAL ${REDRIVE_SECONDS} SECOND))`;
  return changedOne(pool, sql, [settler, workspace, execution]);
}

// It was not redriven after all.
export const giveBack = (pool: Pool, workspace: Buffer, execution: Buffer): Promise<unknown> =>
  pool.query(
    `UPDATE dead_executions SET state = 'DEAD', settle_time = NULL, settler = NULL
      WHERE workspace = ? AND execution = ? AND state = 'REDRIVEN' AND redriven_as IS NULL`,
    [workspace, execution],
  );

// It is repeated, in whatever way: nobody needs to look after it any more.
export async function repeated(pool: Pool, workspace: Buffer, execution: Buffer, by: Buffer, settler: Buffer): Promise<void> {
  const sql = `UPDATE dead_executions SET state = 'REDRIVEN', redriven_as = COALESCE(redriven_as, ?), settler = COALESCE(settler, ?),
    settle_time = COALESCE(settle_time, NOW(6)) WHERE workspace = ? AND execution = ? AND state <> 'DISCARDED'`;
  await pool.query(sql, [by, settler, workspace, execution]);
}

// The execution that repeats it, should a redrive have been cut off between making that and writing it down.
export async function repetitionOf(pool: Pool, workspace: Buffer, { execution, automation }: DeadRow): Promise<Buffer | undefined> {
  const sql = 'SELECT id FROM executions WHERE workspace = ? AND automation = ? AND id > ? AND retry_of = ? LIMIT 1';
  const [[row]] = await pool.query<(RowDataPacket & { id: Buffer })[]>(sql, [workspace, automation, execution, execution]);
  return row?.id;
}

async function changedOne(pool: Pool, sql: string, values: unknown[]): Promise<boolean> {
  const [{ affectedRows }] = await pool.query<ResultSetHeader>(sql, values);
  return affectedRows === 1;
}
