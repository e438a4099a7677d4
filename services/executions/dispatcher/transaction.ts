// A transaction on a pool's connection, repeated when it was the victim of a deadlock.
import type { Pool, PoolConnection } from '#platform/db.ts';
import { isDatabaseAway } from '#platform/faults.ts';
import { pause } from '#platform/pause.ts';

const REPEATS = 20;
const REPEATABLE = new Set([1213, 1205]); // deadlock, lock wait timeout

export async function transaction<T>(pool: Pool, work: (connection: PoolConnection) => Promise<T>): Promise<T> {
  const connection = await pool.getConnection();
  try {
    for (let repeat = 0; ; repeat += 1) {
      try {
        await connection.query('BEGIN');
        const result = await work(connection);
        await connection.query('COMMIT');
        return result;
      } catch (error) {
        await connection.query('ROLLBACK').catch(() => connection.destroy());
        if (repeat === REPEATS || !REPEATABLE.has((error as { errno?: number }).errno ?? 0)) throw error;
        await pause(Math.random() * 5 * (repeat + 1));
      }
    }
  } finally {
    connection.release();
  }
}

// That the database is away is said once, by the lease.
export const unlessAway = (work: Promise<unknown>): Promise<unknown> =>
  work.catch((error) => {
    if (!isDatabaseAway(error)) throw error;
  });
