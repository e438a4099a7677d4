// The lanes: where executions queue. Each queue of a workspace has one of its own, made when it is first needed, and one for each selector that its
// executions ask for beside it. All lanes of a queue have its settings.
import { LRUCache } from 'lru-cache';
import type { Db } from '#platform/db.ts';
import { ANY, type Labels, nameOf } from '../selector.ts';

const MAX_KNOWN = 50_000;
const known = new WeakMap<object, LRUCache<string, Promise<number>>>(); // by database

export const DEFAULT = 'default';

// The lane of a workspace's queue, for executions that ask for these labels.
export function laneOf(db: Db, workspace: Buffer, queue = DEFAULT, selector: Labels = {}): Promise<number> {
  const lanes = known.get(db.client) ?? new LRUCache<string, Promise<number>>({ max: MAX_KNOWN });
  known.set(db.client, lanes);
  const name = nameOf(selector);
  const key = `${workspace.toString('hex')}.${queue}.${name}`;
  const found = lanes.get(key);
  if (found) return found;
  const made = name === ANY ? make(db, workspace, queue) : makeSelected(db, workspace, queue, selector);
  lanes.set(key, made);
  made.catch(() => lanes.delete(key));
  return made;
}

interface Identity {
  workspace: Buffer;
  queue: string;
  selector: string;
  fairness_key: string;
}
const IDENTITY = ['workspace', 'queue', 'selector', 'fairness_key'];
const find = async (db: Db, identity: Identity): Promise<number | undefined> =>
  (await db('lanes').select('lane').where(identity).first())?.lane;

async function make(db: Db, workspace: Buffer, queue: string): Promise<number> {
  const identity = { workspace, queue, selector: ANY, fairness_key: '' };
  const lane = await find(db, identity);
  if (lane !== undefined) return lane;
  await db('lanes')
    .insert({ ...identity, state: 'ACTIVE', weight: 1 })
    .onConflict(IDENTITY)
    .ignore();
  return (await find(db, identity)) as number;
}

// Whoever changes the queue locks its own lane as well: the settings that are copied here are those of all.
async function makeSelected(db: Db, workspace: Buffer, queue: string, selector: Labels): Promise<number> {
  const identity = { workspace, queue, selector: nameOf(selector), fairness_key: '' };
  const lane = await find(db, identity);
  if (lane !== undefined) return lane;
  const own = await laneOf(db, workspace, queue);
  await db.transaction(async (tx) => {
    const settings = await tx('lanes').select('state', 'weight', 'max_running', 'rate_per_second').where({ lane: own }).forUpdate().first();
    await tx('lanes')
      .insert({ ...identity, ...settings, labels: JSON.stringify(selector) })
      .onConflict(IDENTITY)
      .ignore();
  });
  return (await find(db, identity)) as number;
}
