// Checks what every execution was promised: an open one stands in exactly one place, an ended one in none, and a slot is held by whoever may
// start or runs. A breach is a fault of ours: it is counted, logged and repaired. One process at a time.
import type { Bus } from '#platform/bus.ts';
import type { Pool, PoolConnection } from '#platform/db.ts';
import { fromBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { counter } from '#platform/metrics.ts';
import { format, rows } from './engine/sql.ts';
import { ring } from './engine/tickets.ts';
import { FINAL, OPEN } from './execution.ts';
import { alone } from './partition-system.ts';
import { mendLimit, mendPlace } from './repair-system.ts';

export interface Breaches {
  places: Buffer[]; // executions that stand nowhere, twice, or although they have ended
  limits: string[]; // keys whose slots are not held as they should be
}
interface Deps {
  pool: Pool;
  bus: Pick<Bus, 'prefix' | 'state' | 'connection'>;
  log: Logger;
}

const AT_ONCE = 1000;
const repairs = counter('millrace_executions_repairs_total', 'Promises to executions that were found broken, and repaired', ['what']);
repairs.inc({ what: 'place' }, 0);
repairs.inc({ what: 'limit' }, 0);

const PLACES = ['ready', 'waiting', 'timers', 'running'];

const NOWHERE = format(
  `SELECT e.id FROM executions e WHERE e.state IN (?)
    ${PLACES.map((place) => `AND NOT EXISTS (SELECT 1 FROM ${place} p WHERE p.execution = e.id)`).join(' ')} LIMIT ${AT_ONCE}`,
  [OPEN],
);
const WRONGLY = format(
  `SELECT p.execution AS id FROM (${PLACES.map((place) => `SELECT execution FROM ${place}`).join(' UNION ALL ')}) p
    LEFT JOIN executions e ON e.id = p.execution
    GROUP BY p.execution, e.state HAVING COUNT(*) > 1 OR e.state IS NULL OR e.state IN (?) LIMIT ${AT_ONCE}`,
  [FINAL],
);
const HOLDERS =
  'SELECT limit_key, execution FROM ready WHERE limit_key IS NOT NULL UNION ALL SELECT limit_key, execution FROM running WHERE limit_key IS NOT NULL';
const LIMITS = `SELECT limit_key FROM limits l WHERE used <> (SELECT COUNT(*) FROM slots s WHERE s.limit_key = l.limit_key)
    OR used < max AND EXISTS (SELECT 1 FROM waiting w WHERE w.limit_key = l.limit_key)
  UNION SELECT s.limit_key FROM slots s LEFT JOIN (${HOLDERS}) h USING (limit_key, execution) WHERE h.execution IS NULL
  UNION SELECT h.limit_key FROM (${HOLDERS}) h LEFT JOIN slots s USING (limit_key, execution) WHERE s.execution IS NULL
  UNION SELECT w.limit_key FROM waiting w LEFT JOIN limits l USING (limit_key) WHERE l.limit_key IS NULL LIMIT ${AT_ONCE}`;

// Each statement sees one moment, and every move is one commit: what it finds is broken, not on its way.
export async function find(connection: PoolConnection): Promise<Breaches> {
  const [nowhere, wrongly, limits] = await rows<[{ id: Buffer }[], { id: Buffer }[], { limit_key: string }[]]>(connection, [
    NOWHERE,
    WRONGLY,
    LIMITS,
  ]);
  return { places: [...nowhere, ...wrongly].map(({ id }) => id), limits: limits.map(({ limit_key }) => limit_key) };
}

// Answers what was found; undefined when another process is at it.
export const reconcile = ({ pool, bus, log }: Deps): Promise<Breaches | undefined> =>
  alone(pool, 'reconcile', async (connection) => {
    const found = await find(connection);
    const lanes = new Set<number>();
    for (const id of found.places) {
      log.error({ execution: fromBytes('execution', id) }, 'an execution did not stand where it must; it is put right');
      repairs.inc({ what: 'place' });
      const mended = await inTransaction(connection, () => mendPlace(connection, id));
      if (mended.limit !== null) found.limits.push(mended.limit);
      if (mended.lane !== undefined) lanes.add(mended.lane);
    }
    for (const key of new Set(found.limits)) {
      log.error({ key }, 'the slots of a limit were not held as they must; they are put right');
      repairs.inc({ what: 'limit' });
      for (const lane of await inTransaction(connection, () => mendLimit(connection, key))) lanes.add(lane);
    }
    ring(bus, lanes);
    return found;
  });

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
