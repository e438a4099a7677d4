// The automation servers as people see them. They belong to no workspace.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import { SEEN_SECONDS } from './execution-system.ts';

export interface ServerRow {
  id: Buffer;
  labels: unknown;
  slots: number;
  running: number;
  takes: number; // whether it would be given something
  drained: number;
  draining: number;
  tier: number;
  minimum_tier: number;
  register_time: Date;
  seen_time: Date;
}

const MOST = 1000;

// Those that are not lost; all, or one.
export async function list(pool: Pool, id?: Buffer): Promise<ServerRow[]> {
  const sql = `SELECT s.id, s.labels, s.slots, s.drained, s.draining, s.tier, s.minimum_tier, s.register_time, s.seen_time,
      (SELECT COUNT(*) FROM running r WHERE r.server = s.id) AS running,
      NOT s.drained AND NOT s.draining AND s.tier >= s.minimum_tier AND s.seen_time > NOW(6) - INTERVAL ${SEEN_SECONDS} SECOND AS takes
    FROM servers s WHERE s.state = 'LIVE'${id ? ' AND s.id = ?' : ''} ORDER BY s.register_time, s.id LIMIT ${MOST}`;
  const [found] = await pool.query<(RowDataPacket & ServerRow)[]>(sql, [id]);
  return found;
}

// Waits for a claim that has begun: none that begins after it gives the server anything.
export async function setDrained(pool: Pool, id: Buffer, drained: boolean): Promise<void> {
  await pool.query("UPDATE servers SET drained = ? WHERE id = ? AND state = 'LIVE'", [drained, id]);
}
