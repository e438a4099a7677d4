// Makes the coming weeks' partitions of the history, one process at a time.
import type { Pool, PoolConnection, RowDataPacket } from '#platform/db.ts';
import { addWeeks } from './partitions.ts';

const TABLES = ['executions', 'results', 'attempts', 'log_chunks'];
const WAIT_SECONDS = 2; // for a table: whoever waits longer holds up everyone who comes after

// Answers the tables that got new partitions.
export async function extendHistory(pool: Pool, now: Date): Promise<string[]> {
  return alone(pool, 'partitions', async (connection) => {
    await connection.query('SET SESSION lock_wait_timeout = ?', [WAIT_SECONDS]);
    const extended: string[] = [];
    for (const table of TABLES) {
      const sql = 'SELECT partition_name AS name FROM information_schema.partitions WHERE table_schema = DATABASE() AND table_name = ?';
      const [rows] = await connection.query<(RowDataPacket & { name: string })[]>(sql, [table]);
      const change = addWeeks(
        table,
        rows.map(({ name }) => name),
        now,
      );
      if (!change) continue;
      await connection.query(change);
      extended.push(table);
    }
    return extended;
  }).then((extended) => extended ?? []);
}

// Runs work on one connection unless another process of this schema is at it. The connection is not used again: it has settings of its own.
export async function alone<T>(pool: Pool, what: string, work: (connection: PoolConnection) => Promise<T>): Promise<T | undefined> {
  const connection = await pool.getConnection();
  try {
    const [[row]] = await connection.query<(RowDataPacket & { got: number })[]>('SELECT GET_LOCK(CONCAT(DATABASE(), ?), 0) AS got', [
      ` ${what}`,
    ]);
    return row?.got === 1 ? await work(connection) : undefined;
  } finally {
    connection.destroy(); // gives the lock back
  }
}
