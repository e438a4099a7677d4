// Puts right what workspaces are said to have used: from what is kept about their attempts and results. Only ever up: what is counted here was
// written down before, and long ago enough to be in the counts. One process at a time.
import type { Pool, PoolConnection } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import { format, rows } from './engine/sql.ts';
import { alone } from './partition-system.ts';
import { lowestId } from './store.ts';

interface Counted {
  workspace: Buffer;
  bytes: number | string;
  ms?: number | string;
}

const DAY_MS = 24 * 3_600_000;
const DAYS = 2; // today and the day before
const BEFORE = 'NOW(6) - INTERVAL 60 SECOND'; // what ended later may be counted yet
const FORGET_DAYS = 400;
const AT_ONCE = 1000;

// Answers how many rows were too low.
export const mendUsages = ({ pool, now, log }: { pool: Pool; now: Date; log: Pick<Logger, 'info'> }): Promise<number | undefined> =>
  alone(pool, 'usages', async (connection) => {
    let mended = 0;
    for (let ago = 0; ago < DAYS; ago += 1) {
      const day = new Date(Math.floor(now.getTime() / DAY_MS - ago) * DAY_MS);
      mended += await mend(connection, day);
    }
    if (mended > 0) log.info({ mended }, 'what workspaces used was counted too low; it is put right');
    await forget(connection, now);
    return mended;
  });

async function mend(connection: PoolConnection, day: Date): Promise<number> {
  const next = new Date(day.getTime() + DAY_MS);
  const from = lowestId(day.getTime() - DAY_MS); // what was made earlier is not looked for
  const attempts = format(
    `SELECT e.workspace, SUM(COALESCE(a.log_bytes, 0)) AS bytes, SUM(TIMESTAMPDIFF(MICROSECOND, a.start_time, a.end_time) DIV 1000) AS ms
      FROM attempts a JOIN executions e ON e.id = a.execution
      WHERE a.execution >= ? AND e.id >= ? AND a.end_time >= ? AND a.end_time < ? AND a.end_time < ${BEFORE} GROUP BY e.workspace`,
    [from, from, day, next],
  );
  const results = format(
    `SELECT e.workspace, SUM(COALESCE(LENGTH(e.output), LENGTH(x.body), 0)) AS bytes
      FROM executions e LEFT JOIN results x ON x.execution = e.id AND x.kind = 'OUTPUT'
      WHERE e.id >= ? AND e.id < ? AND e.end_time < ${BEFORE} GROUP BY e.workspace`,
    [lowestId(day.getTime()), lowestId(next.getTime())],
  );
  const [used, kept] = await rows<[Counted[], Counted[]]>(connection, [attempts, results]);
  let mended = 0;
  for (const { workspace, bytes, ms } of used) mended += await raise(connection, workspace, day, { log_bytes: bytes, run_ms: ms ?? 0 });
  for (const { workspace, bytes } of kept) mended += await raise(connection, workspace, day, { result_bytes: bytes });
  return mended;
}

// Row by row: a counter that is written at the same time waits for one row only.
async function raise(connection: PoolConnection, workspace: Buffer, day: Date, counts: Record<string, number | string>): Promise<number> {
  const columns = Object.keys(counts);
  const values = { log_bytes: 0, run_ms: 0, result_bytes: 0, ...counts };
  const low = columns.map((column) => format(`${column} < ?`, [Number(counts[column])])).join(' OR ');
  const date = day.toISOString().slice(0, 10);
  const [[found]] = await rows<[{ low: number }[]]>(connection, [
    format(`SELECT ${low} AS low FROM usages WHERE workspace = ? AND day = ?`, [workspace, date]),
  ]);
  if (found?.low === 0 || Object.values(counts).every((count) => Number(count) === 0)) return 0;
  const sets = columns.map((column) => `${column} = GREATEST(${column}, VALUES(${column}))`).join(', ');
  await connection.query(
    format(`INSERT INTO usages (workspace, day, log_bytes, run_ms, result_bytes) VALUES (?) ON DUPLICATE KEY UPDATE ${sets}`, [
      [workspace, date, ...Object.values(values).map(Number)],
    ]),
  );
  return 1;
}

// Results go with their week; days of long ago are not asked for.
async function forget(connection: PoolConnection, now: Date): Promise<void> {
  const [[oldest]] = await rows<[{ id: Buffer }[]]>(connection, ['SELECT id FROM executions ORDER BY id LIMIT 1']);
  const since = oldest ? new Date(oldest.id.readUIntBE(0, 6)) : now;
  const before = format('day < ?', [since.toISOString().slice(0, 10)]);
  const last = new Date(now.getTime() - FORGET_DAYS * DAY_MS).toISOString().slice(0, 10);
  await connection.query(`UPDATE usages SET result_bytes = 0 WHERE ${before} AND result_bytes > 0 LIMIT ${AT_ONCE}`);
  await connection.query(format(`DELETE FROM usages WHERE result_bytes = 0 AND day < ? LIMIT ${AT_ONCE}`, [last]));
}
