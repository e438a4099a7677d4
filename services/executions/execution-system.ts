// What works across workspaces: the view of the servers, and the keeping of what every execution was promised.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import type { ServerView } from './execution.ts';

const SEEN_SECONDS = 30; // three registrations

// The servers that would take work now.
export async function serverView(pool: Pool): Promise<ServerView> {
  const sql = `SELECT COUNT(*) AS live, COALESCE(SUM(tier >= minimum_tier), 0) AS able FROM servers
    WHERE state = 'LIVE' AND NOT draining AND seen_time > NOW(6) - INTERVAL ${SEEN_SECONDS} SECOND`;
  const [[row]] = await pool.query<(RowDataPacket & { live: number; able: string })[]>(sql);
  return { live: row?.live ?? 0, able: Number(row?.able ?? 0) };
}
