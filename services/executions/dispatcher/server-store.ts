// The statements of leases and ownership. Times are the database's.
import type { Pool, PoolConnection, ResultSetHeader, RowDataPacket } from '#platform/db.ts';
import { format, rows } from '../engine/sql.ts';
import type { Claim } from './ledger.ts';

export interface ServerRow {
  id: Buffer;
  endpoint: string;
  owner: Buffer | null;
  owner_epoch: number;
  labels: unknown;
  drained: number; // a person told it to take nothing new
}
export interface View {
  dispatchers: readonly Buffer[]; // that live
  servers: readonly ServerRow[]; // that are not lost
}

const PROTOCOL = 1; // of sessions: servers that speak another one wait for a dispatcher that does
const MICROSECONDS = 1000; // in a millisecond

// Gives a sign of life for this dispatcher and its servers, and answers who else lives.
export async function renew(
  connection: PoolConnection,
  me: Buffer,
  leaseMs: number,
  alive: readonly Buffer[],
  serverLeaseMs: number,
): Promise<View> {
  const lease = format('NOW(6) + INTERVAL ? MICROSECOND', [leaseMs * MICROSECONDS]);
  const serverLease = format('NOW(6) + INTERVAL ? MICROSECOND', [serverLeaseMs * MICROSECONDS]);
  const results = await rows(connection, [
    `${format('INSERT INTO dispatchers (id, lease_until) VALUES (?, ', [me])}${lease}) ON DUPLICATE KEY UPDATE lease_until = ${lease}`,
    ...alive.map((id) => format(`UPDATE servers SET lease_until = ${serverLease} WHERE id = ? AND owner = ? AND state = 'LIVE'`, [id, me])),
    'SELECT id FROM dispatchers WHERE lease_until > NOW(6)',
    `SELECT id, endpoint, owner, owner_epoch, labels, drained FROM servers WHERE state = 'LIVE' AND protocol = ${PROTOCOL}`,
  ]);
  return { dispatchers: (results.at(-2) as { id: Buffer }[]).map(({ id }) => id), servers: results.at(-1) as ServerRow[] };
}

// Makes this dispatcher the owner, if nothing has changed since the row was read. It has a third of a lease to open a session: that nobody renewed
// the lease meanwhile was not the server's fault.
export async function claim(pool: Pool, me: Buffer, { id, owner_epoch }: ServerRow, serverLeaseMs: number): Promise<boolean> {
  const lease = 'GREATEST(lease_until, NOW(6) + INTERVAL ? MICROSECOND)';
  const sql = `UPDATE servers SET owner = ?, owner_epoch = owner_epoch + 1, lease_until = ${lease} WHERE id = ? AND owner_epoch = ? AND state = 'LIVE'`;
  const values = [me, Math.floor((serverLeaseMs * MICROSECONDS) / 3), id, owner_epoch];
  const [{ affectedRows }] = await pool.query<ResultSetHeader>(sql, values);
  return affectedRows === 1;
}

export async function release(connection: PoolConnection, me: Buffer, ids: readonly Buffer[]): Promise<void> {
  if (ids.length === 0) return;
  await connection.query('UPDATE servers SET owner = NULL, owner_epoch = owner_epoch + 1 WHERE id IN (?) AND owner = ?', [ids, me]);
}

export async function leave(pool: Pool, me: Buffer): Promise<void> {
  await pool.query('UPDATE servers SET owner = NULL, owner_epoch = owner_epoch + 1 WHERE owner = ?; DELETE FROM dispatchers WHERE id = ?', [
    me,
    me,
  ]);
}

// Rows that nobody needs: dispatchers and servers that have been gone for a day.
export async function forget(pool: Pool): Promise<void> {
  await pool.query(`DELETE FROM dispatchers WHERE lease_until < NOW(6) - INTERVAL 1 DAY LIMIT 1000;
    DELETE FROM servers WHERE state = 'LOST' AND seen_time < NOW(6) - INTERVAL 1 DAY LIMIT 1000`);
}

// What a server should have.
export async function claims(pool: Pool, server: Buffer): Promise<Claim[]> {
  const [found] = await pool.query<(Claim & RowDataPacket)[]>(
    'SELECT execution, claim_id, attempt, state, started, line_count, claim_time > NOW(6) - INTERVAL 2 SECOND AS is_young FROM running WHERE server = ?',
    [server],
  );
  return found;
}
