// The queues of a workspace: each is a lane, and one more for each selector of its executions. A queue that is changed before it is used is made.
import type { Db, Pool, RowDataPacket } from '#platform/db.ts';
import { laneOf } from './engine/lanes.ts';
import { format, rows } from './engine/sql.ts';
import { ANY, type Labels, labelsOf } from './selector.ts';

export interface QueueRow {
  queue: string;
  state: 'ACTIVE' | 'PAUSED' | 'DRAINING';
  weight: number;
  max_running: number | null;
  rate_per_second: number | null;
  queue_selector: unknown; // labels
  ready: number;
  waiting: number;
  timers: number;
  running: number;
  oldest: number | null; // a tag: microseconds
}
export interface Changes extends Partial<Pick<QueueRow, 'state' | 'weight' | 'max_running' | 'rate_per_second'>> {
  selector?: Labels;
}

const MOST = 1000;
const of = (table: string, what: string, alias: string): string =>
  `(SELECT ${what} FROM lanes s JOIN ${table} t ON t.lane = s.lane WHERE s.workspace = l.workspace AND s.queue = l.queue) AS ${alias}`;
const COUNTS = [
  ...['ready', 'waiting', 'timers', 'running'].map((table) => of(table, 'COUNT(*)', table)),
  of('ready', 'MIN(t.tag)', 'oldest'),
].join(', ');

// A queue is told by its own lane, with what stands in all of its lanes.
export async function list(pool: Pool, workspace: Buffer, name?: string): Promise<QueueRow[]> {
  const sql = `SELECT l.queue, l.state, l.weight, l.max_running, l.rate_per_second, l.queue_selector, ${COUNTS} FROM lanes l
    WHERE l.workspace = ?${name === undefined ? '' : ' AND l.queue = ?'} AND l.selector = '${ANY}' AND l.fairness_key = ''
    ORDER BY l.queue LIMIT ${MOST}`;
  const [found] = await pool.query<(RowDataPacket & QueueRow)[]>(sql, [workspace, name]);
  return found;
}

// Answers the lanes of the queue, which is made when it is not there. All have its settings; what new executions ask for stands in its own.
export async function change(db: Db, workspace: Buffer, name: string, { selector, ...changes }: Changes): Promise<Set<number>> {
  const lane = await laneOf(db, workspace, name);
  return db.transaction(async (tx) => {
    await tx('lanes').select('lane').where({ workspace, lane }).forUpdate(); // nobody makes another one meanwhile
    if (Object.keys(changes).length > 0) await tx('lanes').where({ workspace, queue: name }).update(changes);
    if (selector !== undefined) {
      const asked = labelsOf(selector);
      await tx('lanes')
        .where({ workspace, lane })
        .update({ queue_selector: asked && JSON.stringify(asked) });
    }
    const all = await tx('lanes').select('lane').where({ workspace, queue: name });
    return new Set(all.map((row) => row.lane));
  });
}

// What waits for its turn or behind a key, the first first.
export async function waiting(pool: Pool, workspace: Buffer, name: string, limit: number): Promise<Buffer[]> {
  const lane = format('(SELECT lane FROM lanes WHERE workspace = ? AND queue = ?)', [workspace, name]);
  const some = (table: string) => `(SELECT execution FROM ${table} WHERE lane IN ${lane} LIMIT ${limit})`;
  const [found] = await rows<[{ execution: Buffer }[]]>(pool, [`${some('ready')} UNION ALL ${some('waiting')} LIMIT ${limit}`]);
  return found.map(({ execution }) => execution);
}
