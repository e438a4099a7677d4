// Reads an attempt's log from its chunks, of any workspace: who asks has been checked, and readers share what is read. One call is one
// packet whose statements run in order, state, attempts, lines: what has ended when its state was read is complete when its lines are read.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import { decodeLines } from './engine/log-codec.ts';
import type { State } from './engine/machine.ts';
import type { AttemptLog, Page, Position } from './log.ts';

interface Chunk extends RowDataPacket {
  first_seq: number;
  count: number;
  codec: number;
  body: Buffer;
}

const PAGE_BYTES = 256 * 1024;
const MAX_CHUNKS = 512;
const MAX_ATTEMPTS = 200;

const STATE = 'SELECT state FROM executions WHERE id = ?';
const ATTEMPTS = `SELECT number, end_time IS NOT NULL AS ended, log_count, log_sha256, dropped_bytes FROM attempts
  WHERE execution = ? AND number >= ? ORDER BY number LIMIT ${MAX_ATTEMPTS}`;
// From the chunk that holds the wanted line on, as many as make a page. Chunks may be merged at any time: places count, not chunks.
const CHUNKS = `SELECT c.first_seq, c.count, c.codec, c.body FROM (
    SELECT first_seq, SUM(bytes) OVER (ORDER BY first_seq) - bytes AS bytes_before FROM (
      SELECT first_seq, bytes FROM log_chunks WHERE execution = :id AND attempt = :attempt AND first_seq >= COALESCE((
        SELECT MAX(first_seq) FROM log_chunks WHERE execution = :id AND attempt = :attempt AND first_seq <= :seq), 0)
      ORDER BY first_seq LIMIT ${MAX_CHUNKS}) next) page
  JOIN log_chunks c ON c.execution = :id AND c.attempt = :attempt AND c.first_seq = page.first_seq
  WHERE page.bytes_before < ${PAGE_BYTES} ORDER BY c.first_seq`;

export async function page(pool: Pool, execution: Buffer, from: Position): Promise<Page | undefined> {
  const values = { id: execution, attempt: from.attempt, seq: from.seq };
  const sql = `${pool.format(STATE, [execution])}; ${pool.format(ATTEMPTS, [execution, from.attempt])}; ${named(pool, CHUNKS, values)}`;
  const [results] = await pool.query<RowDataPacket[][]>(sql);
  const [[row], attempts, chunks] = results as unknown as [[{ state: State }?], AttemptLog[], Chunk[]];
  if (!row) return undefined;
  const lines = chunks.flatMap((chunk) => decodeLines(chunk.codec, chunk.body)).filter(({ seq }) => seq >= from.seq);
  return { state: row.state, attempts, lines };
}

// Whether there is such a line.
export async function hasLine(pool: Pool, execution: Buffer, { attempt, seq }: Position): Promise<boolean> {
  const sql = 'SELECT 1 FROM log_chunks WHERE execution = ? AND attempt = ? AND first_seq <= ? AND first_seq + count > ? LIMIT 1';
  const [rows] = await pool.query<RowDataPacket[]>(sql, [execution, attempt, seq, seq]);
  return rows.length > 0;
}

const named = (pool: Pool, sql: string, values: Record<string, unknown>): string =>
  sql.replaceAll(/:(\w+)/g, (_, name) => pool.escape(values[name]));

// Keeps what was counted for an attempt that has ended.
export async function writeSeal(
  pool: Pool,
  execution: Buffer,
  attempt: number,
  seal: { log_count: number; log_sha256: string },
): Promise<void> {
  const sql = `UPDATE attempts SET log_count = ?, log_sha256 = ?
    WHERE execution = ? AND number = ? AND end_time IS NOT NULL AND (log_count IS NULL OR log_sha256 IS NULL)`;
  await pool.query(sql, [seal.log_count, seal.log_sha256, execution, attempt]);
}
