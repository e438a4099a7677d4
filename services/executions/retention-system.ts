// Forgets executions that ended long ago: whole weeks of them, by dropping partitions, never row by row.
import type { Pool, PoolConnection, RowDataPacket } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import { counter, gauge } from '#platform/metrics.ts';
import { OPEN } from './execution.ts';
import { alone, HISTORY, partitionsOf, waitBriefly } from './partition-system.ts';
import { dropWeeks, weeksBefore, weeksEarlier } from './partitions.ts';
import type { Archived } from './retention-archive-system.ts';

interface Retention {
  pool: Pool;
  weeks: number; // that an execution is kept after its end; 0: for ever
  now: Date;
  log: Pick<Logger, 'info' | 'warn'>;
  keep?(connection: PoolConnection, week: string): Promise<Archived | undefined>; // before it is dropped; undefined: it was kept before
}
export interface Forgotten {
  dropped: string[]; // partitions
  waiting: string[]; // partitions whose time has come, but for some of their executions
}

const dropped = counter('millrace_executions_weeks_dropped_total', 'Weeks of history that were dropped');
const waiting = gauge('millrace_executions_weeks_waiting', 'Weeks of history that are kept longer because some of their executions are');

// A week waits as long as one of its executions is open, or ended less than `weeks` ago.
export async function dropHistory({ pool, weeks, now, log, keep }: Retention): Promise<Forgotten> {
  const done: Forgotten = { dropped: [], waiting: [] };
  if (weeks === 0) return done;
  const before = weeksEarlier(now, weeks);
  await alone(pool, 'partitions', async (connection) => {
    await waitBriefly(connection);
    for (const week of weeksBefore(await partitionsOf(connection, 'executions'), before)) {
      const { open, recent } = await standingOf(connection, week, before);
      if (open + recent > 0) {
        log.warn({ week, open, recent }, 'a week of history waits for its open executions, or for those that ended late');
        done.waiting.push(week);
        continue;
      }
      const archived = await keep?.(connection, week);
      if (archived) log.info({ week, ...archived }, 'a week of history was kept as a file');
      for (const table of HISTORY) {
        const statement = dropWeeks(table, await partitionsOf(connection, table), [week]);
        if (statement) await connection.query(statement);
      }
      log.info({ week }, 'a week of history was dropped');
      dropped.inc();
      done.dropped.push(week);
    }
    waiting.set(done.waiting.length);
  });
  return done;
}

// An ended execution stays so, and no new one gets an id of a past week: what is read here cannot change before the drop. The whole week is only
// read when nothing in it is open.
async function standingOf(connection: PoolConnection, week: string, before: Date): Promise<{ open: number; recent: number }> {
  const count = async (condition: string, values: unknown[]) => {
    const sql = `SELECT COUNT(*) AS n FROM executions PARTITION (${week}) WHERE ${condition}`;
    const [[row]] = await connection.query<(RowDataPacket & { n: number })[]>(sql, values);
    return row?.n ?? 0;
  };
  const open = await count('state IN (?)', [OPEN]);
  return { open, recent: open > 0 ? 0 : await count('end_time IS NULL OR end_time >= ?', [before]) };
}
