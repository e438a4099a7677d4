// Makes the coming weeks' partitions of the history, one process at a time.
import type { Pool, PoolConnection, RowDataPacket } from '#platform/db.ts';
import { addWeeks } from './partitions.ts';

// What an execution's row tells of comes first: an interrupted drop is gone on with as long as the executions are there.
export const HISTORY = ['results', 'attempts', 'log_chunks', 'dead_executions', 'payloads', 'executions'];
const WAIT_SECONDS = 2; // for a table: whoever waits longer holds up everyone who comes after

// Answers the tables that got new partitions.
export async function extendHistory(pool: Pool, now: Date): Promise<string[]> {
  return alone(pool, 'partitions', async (connection) => {
    await waitBriefly(connection);
    const extended: string[] = [];
    for (const table of HISTORY) {
      const change = addWeeks(table, await partitionsOf(connection, table), now);
      if (!change) continue;
      await connection.query(change);
      extended.push(table);
    }
    return extended;
  }).then((extended) => extended ?? []);
}

export async function partitionsOf(connection: PoolConnection, table: string): Promise<string[]> {
  const sql = 'SELECT partition_name AS name FROM information_schema.partitions WHERE table_schema = DATABASE() AND table_name = ?';
  const [rows] = await connection.query<(RowDataPacket & { name: string })[]>(sql, [table]);
  return rows.map(({ name }) => name);
}

export const waitBriefly = (connection: PoolConnection): Promise<unknown> =>
  connection.query('SET SESSION lock_wait_timeout = ?', [WAIT_SECONDS]);

// Runs work on one connection unless another process of this schema is at it. The connection is not used again: it has settings of its own.
export async function alone<T>(pool: Pool, what: string, work: (connection: PoolConnection) => Promise<T>): Promise<T | undefined> {
  const connection = await pool.getConnection();
  const name = ` ${what}`;
  try {
    const sql = 'SELECT GET_LOCK(CONCAT(DATABASE(), ?), 0) AS got';
    const [[row]] = await connection.query<(RowDataPacket & { got: number })[]>(sql, [name]);
    return row?.got === 1 ? await work(connection) : undefined;
  } finally {
    // The end of a connection gives its locks back too, but a moment later: whoever comes next would find work that nobody is at.
    await connection.query('DO RELEASE_LOCK(CONCAT(DATABASE(), ?))', [name]).catch(() => undefined);
    connection.destroy();
  }
}
