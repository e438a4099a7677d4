// Erases the input and output of executions whose automation does not want them kept. The execution stays, with the time of it.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import { counter } from '#platform/metrics.ts';
import { transaction } from './dispatcher/transaction.ts';

const AT_ONCE = 500;
const NEVER = '9999-12-31';
const erased = counter('millrace_executions_payloads_erased_total', 'Executions whose input and output were erased');

type Found = RowDataPacket & { execution: Buffer };

// Answers how many were erased. May be done by several processes at once.
export async function erasePayloads(pool: Pool): Promise<number> {
  await eachPage(pool, ENDED, (execution) => pool.format(SET_DUE, [execution]));
  const count = await eachPage(pool, DUE, (execution) => erase(pool, execution));
  erased.inc(count);
  return count;
}

const ENDED = `SELECT p.execution FROM payloads p JOIN executions e ON e.id = p.execution
  WHERE p.due_time IS NULL AND e.end_time IS NOT NULL LIMIT ${AT_ONCE}`;
const SET_DUE = `UPDATE payloads p JOIN executions e ON e.id = p.execution
  SET p.due_time = IF(p.keep_ms IS NULL, '${NEVER}', e.end_time + INTERVAL p.keep_ms * 1000 MICROSECOND)
  WHERE p.execution = ? AND p.due_time IS NULL`;
const DUE = `SELECT execution FROM payloads WHERE due_time <= NOW(6) ORDER BY due_time LIMIT ${AT_ONCE}`;

// It is no result that is kept any more. The day is that of usages, in UTC.
const UNCOUNT = `UPDATE usages u JOIN executions e ON e.workspace = u.workspace AND DATE(e.create_time) = u.day
    LEFT JOIN results x ON x.execution = e.id AND x.kind = 'OUTPUT'
  SET u.result_bytes = GREATEST(0, u.result_bytes - COALESCE(LENGTH(e.output), LENGTH(x.body), 0))
  WHERE e.id = ? AND e.end_time IS NOT NULL`;

const erase = (pool: Pool, execution: Buffer): string =>
  [
    pool.format(UNCOUNT, [execution]),
    ...['INPUT', 'OUTPUT'].map((kind) => pool.format('DELETE FROM results WHERE execution = ? AND kind = ?', [execution, kind])),
    pool.format('UPDATE executions SET input = NULL, output = NULL, payload_deleted_time = NOW(6) WHERE id = ? AND end_time IS NOT NULL', [
      execution,
    ]),
    pool.format('DELETE FROM payloads WHERE execution = ?', [execution]),
  ].join(';\n');

// Until a page is not full.
async function eachPage(pool: Pool, select: string, change: (execution: Buffer) => string): Promise<number> {
  for (let count = 0; ; ) {
    const [rows] = await pool.query<Found[]>(select);
    for (const { execution } of rows) await transaction(pool, (connection) => connection.query(change(execution)));
    count += rows.length;
    if (rows.length < AT_ONCE) return count;
  }
}
