// The statements of unique keys.
import type { RowDataPacket } from '#platform/db.ts';
import type { Connection } from './accept-store.ts';

interface Ask {
  workspace: Buffer;
  key: Buffer;
  execution: Buffer;
  ttlMs: number | null;
}
export interface Holder {
  workspace: Buffer;
  unique_key: Buffer;
  execution: Buffer;
  isTaken: boolean; // it is open, or its time is not over; of the batch's own, too
}

const expiry = (ttlMs: number | null): string => (ttlMs === null ? 'NULL' : `NOW(6) + INTERVAL ${Math.round(ttlMs * 1000)} MICROSECOND`);

// Writes the keys that nobody has, locks all, in their order, and answers who has them.
export async function lock(connection: Connection, asks: readonly Ask[]): Promise<Holder[]> {
  const sorted = [...asks].sort((a, b) => Buffer.compare(a.workspace, b.workspace) || Buffer.compare(a.key, b.key));
  const values = sorted.map(({ workspace, key, execution, ttlMs }) =>
    connection.format(`(?, ?, ?, ${expiry(ttlMs)})`, [workspace, key, execution]),
  );
  const names = sorted.map(({ workspace, key }) => [workspace, key]);
  const [results] = await connection.query<RowDataPacket[][]>(
    `INSERT INTO unique_keys (workspace, unique_key, execution, expire_time) VALUES ${values.join(', ')} ON DUPLICATE KEY UPDATE execution = execution;
    ${connection.format(HOLDERS, [names])}`,
  );
  const own = new Set(asks.map(({ execution }) => execution.toString('hex')));
  const found = results[1] as unknown as (Omit<Holder, 'isTaken'> & { taken: number })[];
  return found.map(({ taken, ...row }) => ({ ...row, isTaken: taken === 1 || own.has(row.execution.toString('hex')) }));
}

const HOLDERS = `SELECT u.workspace, u.unique_key, u.execution,
    IF(u.expire_time IS NULL, e.id IS NOT NULL AND e.end_time IS NULL, u.expire_time > NOW(6)) AS taken
  FROM unique_keys u LEFT JOIN executions e ON e.id = u.execution WHERE (u.workspace, u.unique_key) IN (?)`;

export async function take(connection: Connection, { workspace, key, execution, ttlMs }: Ask, replaces: Buffer | null): Promise<void> {
  const sql = `UPDATE unique_keys SET execution = ?, replaces = ?, expire_time = ${expiry(ttlMs)} WHERE workspace = ? AND unique_key = ?`;
  await connection.query(sql, [execution, replaces, workspace, key]);
}
