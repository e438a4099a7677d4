// The queues of a workspace: each is a lane. A queue that is changed before it is used is made.
import type { Db, Pool, RowDataPacket } from '#platform/db.ts';
import { laneOf } from './engine/lanes.ts';
import { format, rows } from './engine/sql.ts';

export interface QueueRow {
  lane: number;
  queue: string;
  state: 'ACTIVE' | 'PAUSED' | 'DRAINING';
  weight: number;
  max_running: number | null;
  rate_per_second: number | null;
  ready: number;
  waiting: number;
  timed: number;
  running: number;
  oldest: number | null; // a tag: microseconds
}

const MOST = 1000;
const COUNTS = `(SELECT COUNT(*) FROM ready r WHERE r.lane = l.lane) AS ready, (SELECT COUNT(*) FROM waiting w WHERE w.lane = l.lane) AS waiting,
  (SELECT COUNT(*) FROM timers t WHERE t.lane = l.lane) AS timed,
  (SELECT COUNT(*) FROM running u WHERE u.workspace = l.workspace AND u.lane = l.lane) AS running,
  (SELECT MIN(tag) FROM ready r WHERE r.lane = l.lane) AS oldest`;

export async function list(pool: Pool, workspace: Buffer, name?: string): Promise<QueueRow[]> {
  const sql = `SELECT l.lane, l.queue, l.state, l.weight, l.max_running, l.rate_per_second, ${COUNTS} FROM lanes l
    WHERE l.workspace = ?${name === undefined ? '' : ' AND l.queue = ?'} ORDER BY l.queue LIMIT ${MOST}`;
  const [found] = await pool.query<(RowDataPacket & QueueRow)[]>(sql, [workspace, name]);
  return found;
}

// Answers the lane, which is made when it is not there.
export async function change(db: Db, workspace: Buffer, name: string, changes: Partial<QueueRow>): Promise<number> {
  const lane = await laneOf(db, workspace, name);
  await db('lanes').where({ workspace, lane }).update(changes);
  return lane;
}

// What waits for its turn or behind a key, the first first.
export async function waiting(pool: Pool, workspace: Buffer, name: string, limit: number): Promise<Buffer[]> {
  const lane = format('(SELECT lane FROM lanes WHERE workspace = ? AND queue = ?)', [workspace, name]);
  const of = (table: string) => `(SELECT execution FROM ${table} WHERE lane IN ${lane} LIMIT ${limit})`;
  const [found] = await rows<[{ execution: Buffer }[]]>(pool, [`${of('ready')} UNION ALL ${of('waiting')} LIMIT ${limit}`]);
  return found.map(({ execution }) => execution);
}
