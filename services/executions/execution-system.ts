// What works across workspaces: the view of what runs executions.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import type { Fleet } from './execution.ts';

const SEEN_SECONDS = 30; // three registrations

// The servers that would take work now, and who would hand it to them.
export async function fleetOf(pool: Pool): Promise<Fleet> {
  const able = 's.tier >= s.minimum_tier';
  const sql = `SELECT COUNT(*) AS live, COALESCE(SUM(${able}), 0) AS able, COALESCE(SUM(IF(${able}, s.slots, 0)), 0) AS slots,
      COALESCE(SUM(IF(${able}, (SELECT COUNT(*) FROM running r WHERE r.server = s.id), 0)), 0) AS used,
      (SELECT COUNT(*) FROM dispatchers WHERE lease_until > NOW(6)) AS dispatchers
    FROM servers s WHERE s.state = 'LIVE' AND NOT s.draining AND s.seen_time > NOW(6) - INTERVAL ${SEEN_SECONDS} SECOND`;
  const [[row]] = await pool.query<(RowDataPacket & Record<keyof Fleet, number | string>)[]>(sql);
  const of = (key: keyof Fleet) => Number(row?.[key] ?? 0); // sums come as text
  return { live: of('live'), able: of('able'), slots: of('slots'), used: of('used'), dispatchers: of('dispatchers') };
}
