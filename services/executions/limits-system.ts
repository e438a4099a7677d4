// What is done about concurrency limits now and then: those that drifted from what is published are put right, those that nobody uses go, and
// where the newest shall run the older ones make room.
import type { Bus } from '#platform/bus.ts';
import type { Pool, PoolConnection } from '#platform/db.ts';
import type { MakeRoom } from './crowd.ts';
import { DRIFTED, resizeSome, type Wanted } from './engine/resize.ts';
import { lockLimits } from './engine/slots.ts';
import { format, rows } from './engine/sql.ts';
import { ring } from './engine/tickets.ts';
import { alone } from './partition-system.ts';

interface Deps {
  pool: Pool;
  bus: Pick<Bus, 'prefix' | 'state' | 'connection'>;
  makeRoom: MakeRoom;
}

const AT_ONCE = 1000;

// One process at a time.
export const tidyLimits = ({ pool, bus, makeRoom }: Deps): Promise<unknown> =>
  alone(pool, 'limits', async (connection) => {
    ring(bus, await resizeDrifted(connection));
    await forgetUnused(connection);
    for (const key of await crowded(connection)) await makeRoom(key);
  });

// A batch that was accepted while another limit was being published may have made its row with the old one. Answers the lanes to ring.
export async function resizeDrifted(connection: PoolConnection): Promise<Set<number>> {
  const [drifted] = await rows<[Wanted[]]>(connection, [`${DRIFTED} LIMIT ${AT_ONCE}`]);
  return drifted.length === 0 ? new Set() : inTransaction(connection, () => resizeSome(connection, drifted));
}

// Answers how many were removed. Whoever comes back to a key has its row locked or makes it again; a timer does not, so it keeps it.
export async function forgetUnused(connection: PoolConnection): Promise<number> {
  const [idle] = await rows<[{ limit_key: string }[]]>(connection, [
    `SELECT limit_key FROM limits WHERE used = 0 AND automation IS NOT NULL LIMIT ${AT_ONCE}`,
  ]);
  let count = 0;
  for (const { limit_key: key } of idle) {
    await inTransaction(connection, async () => {
      const limit = (await lockLimits(connection, [key])).get(key);
      const users = ['slots', 'waiting', 'timers'].map((table) => `EXISTS (SELECT 1 FROM ${table} WHERE limit_key = ?)`).join(' OR ');
      const [[found]] = await rows<[[{ used: number }]]>(connection, [format(`SELECT ${users} AS used`, [key, key, key])]);
      if (limit?.used !== 0 || found.used) return;
      await rows(connection, [format('DELETE FROM limits WHERE limit_key = ?', [key])]);
      count += 1;
    });
  }
  return count;
}

// The keys behind which something waits although older ones shall make room.
export async function crowded(connection: PoolConnection): Promise<string[]> {
  const sql = `SELECT l.limit_key FROM limits l WHERE l.policy = 'CANCEL_OLD' AND EXISTS (SELECT 1 FROM waiting w WHERE w.limit_key = l.limit_key)
    LIMIT ${AT_ONCE}`;
  const [found] = await rows<[{ limit_key: string }[]]>(connection, [sql]);
  return found.map(({ limit_key }) => limit_key);
}

async function inTransaction<T>(connection: PoolConnection, work: () => Promise<T>): Promise<T> {
  await connection.query('BEGIN');
  try {
    const made = await work();
    await connection.query('COMMIT');
    return made;
  } catch (error) {
    await connection.query('ROLLBACK');
    throw error;
  }
}
