// The lanes: where executions queue. Each queue of a workspace has one, made when it is first needed.
import { LRUCache } from 'lru-cache';
import type { Db } from '#platform/db.ts';

const MAX_KNOWN = 50_000;
const known = new WeakMap<object, LRUCache<string, Promise<number>>>(); // by database

export const DEFAULT = 'default';

// The lane of a workspace's queue.
export function laneOf(db: Db, workspace: Buffer, queue = DEFAULT): Promise<number> {
  const lanes = known.get(db.client) ?? new LRUCache<string, Promise<number>>({ max: MAX_KNOWN });
  known.set(db.client, lanes);
  const key = `${workspace.toString('hex')}.${queue}`;
  const found = lanes.get(key);
  if (found) return found;
  const made = make(db, workspace, queue);
  lanes.set(key, made);
  made.catch(() => lanes.delete(key));
  return made;
}

async function make(db: Db, workspace: Buffer, queue: string): Promise<number> {
  const identity = { workspace, queue, selector: 'any', fairness_key: '' };
  const find = async (): Promise<number | undefined> => (await db('lanes').select('lane').where(identity).first())?.lane;
  const lane = await find();
  if (lane !== undefined) return lane;
  await db('lanes')
    .insert({ ...identity, state: 'ACTIVE', weight: 1 })
    .onConflict(['workspace', 'queue', 'selector', 'fairness_key'])
    .ignore();
  return (await find()) as number;
}
