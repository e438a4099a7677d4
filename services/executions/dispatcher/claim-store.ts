// The statements of a claim. Lock order: lanes (those with limits), servers, ready, running.
import { type Claimed, insertRunning, type Ready } from '../engine/claims.ts';
import type { Clock } from '../engine/clock.ts';
import { isOpen } from '../engine/gates.ts';
import { epochsOf, type Held, lockOwned, unlessOwned } from '../engine/owned.ts';
import { atOnce, type Connection, format, rows, unless } from '../engine/sql.ts';
import type { Labels } from '../selector.ts';

// Where a lane's rows begin: the last one that was claimed. What came before it is deleted, and dear to read while somebody has an old view open.
export interface Mark {
  priority: number;
  tag: number;
}
export interface Ask {
  lane: number;
  count: number;
  mark: Mark | undefined;
  selector?: Labels | undefined; // undefined: any server
}

// Begins a transaction, unless one has begun, and takes the first rows of each lane that nobody else has taken.
export async function take(connection: Connection, owner: Buffer, servers: readonly Buffer[], asks: readonly Ask[], hasBegun: boolean) {
  const begin = hasBegun ? 'SELECT 1' : 'BEGIN';
  const [, owned, ...sets] = await rows(connection, [begin, lockOwned(owner, servers, 'NOT_DRAINED'), ...asks.map(head)]);
  return { epochs: epochsOf(owned as Parameters<typeof epochsOf>[0]), sets: sets as Ready[][] };
}

// Only ready is locked. One statement costs a fifth less than asking for the executions after it, and saves a round trip.
const head = ({ lane, count, mark, selector }: Ask): string =>
  `SELECT r.lane, r.priority, r.tag, r.execution, r.limit_key, r.attempt, r.losses, e.workspace, e.automation, e.revision, e.creator,
      e.version, e.retry_of, e.labels, e.schedule_time, e.create_time, COALESCE(e.input, i.body) AS input, e.traceparent,
      GREATEST(e.create_time, COALESCE(e.schedule_time, e.create_time)) AS base_time, NOW(6) AS now
    FROM (SELECT lane, priority, tag, execution, limit_key, attempt, losses FROM ready
      WHERE ${format('lane = ?', [lane])}${mark ? after(mark) : ''} AND expire_time > NOW(6) AND ${isOpen(String(lane), selector ? undefined : 'ANY_SERVER')}
      ORDER BY priority, tag, execution LIMIT ${count} FOR UPDATE SKIP LOCKED) r
    LEFT JOIN executions e ON e.id = r.execution
    LEFT JOIN results i ON i.execution = r.execution AND i.kind = 'INPUT'
    ORDER BY r.priority, r.tag, r.execution`;

const after = ({ priority, tag }: Mark): string =>
  format(' AND (priority < ? OR (priority = ? AND tag >= ?) OR priority > ?)', [priority, priority, tag, priority]);

// The same for what a notice told: takes it without reading, writes what is to be written of it, and commits. Fails with UNLIKE, and the
// transaction stays open, unless all of it still stands there, its lanes are open and all servers are ours.
export async function moveFresh(
  connection: Connection,
  owner: Buffer,
  clock: Clock,
  servers: readonly Held[],
  claimed: readonly Claimed[],
): Promise<void> {
  const inOrder = [...claimed].sort((a, b) => Buffer.compare(a.row.execution, b.row.execution));
  const lanes = [...new Set(claimed.map(({ row }) => row.lane))];
  await atOnce(connection, clock, [
    unlessOwned(owner, servers, 'NOT_DRAINED'),
    unless(lanes.map((lane) => isOpen(String(lane), 'ANY_SERVER')).join(' AND ')),
    ...inOrder.flatMap(({ row }) => [`${removal(row)} AND expire_time > NOW(6)`, unless('ROW_COUNT() = 1')]),
    ...insertRunning(inOrder),
  ]);
}

const removal = ({ lane, priority, tag, execution }: Ready): string =>
  format('DELETE FROM ready WHERE lane = ? AND priority = ? AND tag = ? AND execution = ?', [lane, priority, tag, execution]);

// Moves them from ready to running, writes what else there is to write, and commits.
export async function move(connection: Connection, claimed: readonly Claimed[], others: readonly string[]): Promise<void> {
  const inOrder = [...claimed].sort((a, b) => Buffer.compare(a.row.execution, b.row.execution));
  await rows(connection, [...insertRunning(inOrder), ...claimed.map(({ row }) => removal(row)), ...others, 'COMMIT']);
}
