// What is set for workspaces, and what they use. Days are those of UTC, as the connections have it.
import type { Db, Pool, RowDataPacket } from '#platform/db.ts';
import { type Limits, NAMES, type Used } from './quotas.ts';

export type Counted = Omit<Used, 'queued' | 'running'>;

const MIB = 1024 * 1024;
const MINUTE_MS = 60_000;

// What was set for the workspace, and what it used, in one statement.
export async function standing(pool: Pool, workspace: Buffer): Promise<{ own: Partial<Limits>; used: Counted }> {
  const month = 'u.day >= DATE_FORMAT(CURRENT_DATE, "%Y-%m-01")';
  const sql = `SELECT ${NAMES.map((name) => `q.${name}`).join(', ')}, u.* FROM (SELECT
      COALESCE(SUM(IF(u.day = CURRENT_DATE, u.log_bytes, 0)), 0) AS log_day, COALESCE(SUM(IF(${month}, u.log_bytes, 0)), 0) AS log_month,
      COALESCE(SUM(IF(${month}, u.run_ms, 0)), 0) AS run_month, COALESCE(SUM(u.result_bytes), 0) AS results
    FROM usages u WHERE u.workspace = ?) u LEFT JOIN quotas q ON q.workspace = ?`;
  const [[row]] = await pool.query<(RowDataPacket & Record<string, string | number | null>)[]>(sql, [workspace, workspace]);
  const of = (name: string) => Number(row?.[name] ?? 0); // sums come as text
  return {
    own: Object.fromEntries(NAMES.map((name) => [name, row?.[name] ?? null])),
    used: {
      log_mib_per_day: of('log_day') / MIB,
      log_mib_per_month: of('log_month') / MIB,
      result_mib: of('results') / MIB,
      run_minutes_per_month: of('run_month') / MINUTE_MS,
    },
  };
}

export async function countRunning(pool: Pool, workspace: Buffer): Promise<number> {
  const [[row]] = await pool.query<(RowDataPacket & { n: number })[]>('SELECT COUNT(*) AS n FROM running WHERE workspace = ?', [workspace]);
  return row?.n ?? 0;
}

export async function set(db: Db, workspace: Buffer, limits: Partial<Limits>): Promise<void> {
  await db('quotas')
    .insert({ workspace, ...limits })
    .onConflict('workspace')
    .merge(limits);
}
