// What works across workspaces: the view of what runs executions.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import { type Fleet, fleetFor, type Servers } from './execution.ts';
import { labelsOf } from './selector.ts';

export const SEEN_SECONDS = 30; // three registrations

// The servers that would take work now, by their labels, and who would hand it to them.
export async function fleetOf(pool: Pool): Promise<Fleet> {
  const able = 's.tier >= s.minimum_tier';
  const sql = `SELECT s.labels, COUNT(*) AS live, SUM(${able}) AS able, SUM(IF(${able}, s.slots, 0)) AS slots,
      SUM(IF(${able}, (SELECT COUNT(*) FROM running r WHERE r.server = s.id), 0)) AS used
    FROM servers s WHERE s.state = 'LIVE' AND NOT s.draining AND NOT s.drained AND s.seen_time > NOW(6) - INTERVAL ${SEEN_SECONDS} SECOND
    GROUP BY s.labels ORDER BY s.labels;
    SELECT COUNT(*) AS dispatchers FROM dispatchers WHERE lease_until > NOW(6)`;
  const [[servers, [counted]]] = await pool.query<[(RowDataPacket & Found)[], (RowDataPacket & { dispatchers: number })[]]>(sql);
  const all = servers.map(
    ({ labels, live, able: good, slots, used }): Servers => ({
      labels: labelsOf(labels) ?? {},
      live: Number(live),
      able: Number(good),
      slots: Number(slots),
      used: Number(used),
    }),
  );
  return fleetFor(all, counted?.dispatchers ?? 0, null);
}

// Sums come as text.
type Found = { labels: unknown } & Record<'live' | 'able' | 'slots' | 'used', number | string>;
