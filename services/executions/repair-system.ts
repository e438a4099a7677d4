// Repairs of what the reconciler found, each in a transaction of its own that looks again first.
import type { PoolConnection } from '#platform/db.ts';
import { isFinal, type State } from './engine/machine.ts';
import { admit, type Limit, lockLimits, READY, readyOf, type Waiter } from './engine/slots.ts';
import { format, insert, rows } from './engine/sql.ts';
import { nextTag } from './engine/tags.ts';

interface Found {
  state: State;
  lane: number;
  priority: number;
  limit_key: string | null;
}
interface Mended {
  limit: string | null; // to be looked at too
  lane: number | undefined; // where something may start
}

// In the order of which place counts when there are several.
const PLACES = ['running', 'ready', 'waiting', 'timers'] as const;
const EXPIRES_HOURS = 24;
const WAITING = 'limit_key, seq, execution, lane, priority, attempt, losses, expire_time';

export async function mendPlace(connection: PoolConnection, execution: Buffer): Promise<Mended> {
  const lock = format('SELECT state, lane, priority, limit_key FROM executions WHERE id = ? FOR UPDATE', [execution]);
  const places = PLACES.map((place) => `(SELECT COUNT(*) FROM ${place} WHERE execution = x.id) AS ${place}`).join(', ');
  const look = format(`SELECT ${places} FROM (SELECT ? AS id) x`, [execution]); // one statement sees one moment
  const [[found], [stands]] = await rows<[[Found?], [Record<(typeof PLACES)[number], number>]]>(connection, [lock, look]);
  const standing = PLACES.filter((place) => stands[place] > 0);
  const wrong = !found || isFinal(found.state) ? standing : standing.slice(1);
  for (const place of wrong) await connection.query(`DELETE FROM ${place} WHERE execution = ?`, [execution]);
  const limit = found?.limit_key ?? null;
  if (!found || isFinal(found.state) || standing.length > 0) return { limit, lane: undefined };
  await putBack(connection, execution, found);
  return { limit, lane: limit === null ? found.lane : undefined };
}

// It waits for its turn again. An attempt that nobody can tell about any more is lost.
async function putBack(connection: PoolConnection, execution: Buffer, { lane, priority, limit_key }: Found): Promise<void> {
  const [[last], [clock]] = await rows<[[{ number: number | null }], [{ expire_time: Date }]]>(connection, [
    format('SELECT MAX(number) AS number FROM attempts WHERE execution = ?', [execution]),
    `SELECT NOW(6) + INTERVAL ${EXPIRES_HOURS} HOUR AS expire_time`,
  ]);
  const waiter = { execution, lane, priority, attempt: (last.number ?? 0) + 1, losses: 0, expire_time: clock.expire_time };
  const { attempt, losses, expire_time } = waiter;
  await rows(connection, [
    format("UPDATE attempts SET state = 'LOST', end_time = NOW(6) WHERE execution = ? AND end_time IS NULL", [execution]),
    format("UPDATE executions SET state = 'QUEUED' WHERE id = ?", [execution]),
    ...(limit_key === null
      ? insert('ready', READY, [readyOf({ ...waiter, limit_key: null })])
      : insert('waiting', WAITING, [[limit_key, nextTag(), execution, lane, priority, attempt, losses, expire_time]])),
  ]);
}

// Those that wait behind a limit that is not there would wait for ever: it is made again as their automation has it, else for one at a time.
async function makeLimit(connection: PoolConnection, key: string): Promise<Limit | undefined> {
  const made = `INSERT INTO limits (limit_key, max, used, automation, policy)
    SELECT w.limit_key, COALESCE(CAST(JSON_EXTRACT(a.concurrency, '$.max') AS SIGNED), 1), 0, e.automation,
      COALESCE(JSON_UNQUOTE(JSON_EXTRACT(a.concurrency, '$.policy')), 'QUEUE')
    FROM waiting w JOIN executions e ON e.id = w.execution LEFT JOIN automations a ON a.id = e.automation WHERE w.limit_key = ? LIMIT 1
    ON DUPLICATE KEY UPDATE limit_key = VALUES(limit_key)`;
  await connection.query(made, [key]);
  return (await lockLimits(connection, [key])).get(key);
}

const HOLDERS = 'SELECT execution FROM ready WHERE limit_key = ? UNION SELECT execution FROM running WHERE limit_key = ?';

// Slots are held by those that may start or run, and by nobody else; first waiters take what is free. Answers the lanes to ring.
export async function mendLimit(connection: PoolConnection, key: string): Promise<number[]> {
  const limit = (await lockLimits(connection, [key])).get(key) ?? (await makeLimit(connection, key));
  await rows(connection, [
    format(`DELETE FROM slots WHERE limit_key = ? AND execution NOT IN (${HOLDERS})`, [key, key, key]),
    format(`INSERT IGNORE INTO slots (limit_key, execution) SELECT ?, h.execution FROM (${HOLDERS}) h`, [key, key, key]),
  ]);
  if (!limit) return []; // a limit that was taken away, and nobody waits for it
  const count = format('SELECT COUNT(*) AS used FROM slots WHERE limit_key = ?', [key]);
  const [[{ used }]] = await rows<[[{ used: number }]]>(connection, [count]);
  const heads = format(`SELECT ${WAITING} FROM waiting WHERE limit_key = ? ORDER BY seq LIMIT ? FOR UPDATE`, [
    key,
    Math.max(0, limit.max - used),
  ]);
  const [waiters] = await rows<[Waiter[]]>(connection, [heads]);
  await rows(connection, [
    format('UPDATE limits SET used = ? WHERE limit_key = ?', [used + waiters.length, key]),
    ...waiters.map(({ seq, execution }) =>
      format('DELETE FROM waiting WHERE limit_key = ? AND seq = ? AND execution = ?', [key, seq, execution]),
    ),
    ...admit(waiters),
  ]);
  return waiters.map(({ lane }) => lane);
}
