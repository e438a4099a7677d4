// Accepting behind limits: each execution of a batch that is under one takes a place, waits, is skipped or is refused.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { type Fault, reasonsOf } from '#platform/errors.ts';
import type { Asked, Entry } from './accept.ts';
import type { Connection } from './accept-store.ts';
import * as store from './accept-store.ts';
import { type Limit, placeFor } from './concurrency.ts';
import { skipped } from './engine/machine.ts';

export interface Placed {
  takes: Map<string, number>; // slots that were taken, by key
  crowded: Set<string>; // keys where older ones shall make room
  refused: Map<Asked, Fault>;
}
type Limited = Entry & { limit: Limit };

const faults = reasonsOf<keyof typeof ErrorReason>('executions');
const isLimited = (entry: Entry): entry is Limited => entry.limit !== null;

// `ready` implies that the slot is held. What starts later takes its slot when it is due. Inside the transaction, after the idempotency keys.
export async function place(connection: Connection, entries: readonly Entry[]): Promise<Placed> {
  const placed: Placed = { takes: new Map(), crowded: new Set(), refused: new Map() };
  const limited = entries.filter(isLimited);
  if (limited.length === 0) return placed;
  const byKey = new Map(limited.map((entry) => [entry.limit.key, { ...entry.limit, automation: entry.asked.draft.automation }]));
  const limits = await store.lockLimits(
    connection,
    [...byKey.values()].sort((a, b) => (a.key < b.key ? -1 : 1)),
  );
  const found = new Map(limits.map((limit) => [limit.limit_key, { ...limit }]));
  for (const entry of limited.filter(({ plan }) => !plan.isLater)) settle(entry, found.get(entry.limit.key), placed);
  await store.dropKeys(connection, [...placed.refused.keys()]);
  return placed;
}

function settle(entry: Limited, limit: store.LimitRow | undefined, { takes, crowded, refused }: Placed): void {
  const { key, maxQueued } = entry.limit;
  if (!limit) throw new Error(`there is no limit ${key}`);
  const taken = takes.get(key) ?? 0;
  const becomes = placeFor({ ...entry.limit, max: limit.max }, limit.used + taken, limit.queued);
  if (becomes === 'START') takes.set(key, taken + 1);
  else if (becomes === 'WAIT') {
    entry.waits = true;
    if (entry.row.blocked !== 'MAINTENANCE') entry.row = { ...entry.row, blocked: 'CONCURRENCY_LIMIT' };
    limit.queued += 1;
    if (entry.limit.policy === 'CANCEL_OLD') crowded.add(key);
  } else if (becomes === 'SKIP') {
    entry.skips = true;
    entry.row = { ...entry.row, state: 'SKIPPED', version: entry.row.version + 1, error: skipped(), end_time: entry.row.create_time };
  } else {
    const message = `${maxQueued} executions wait behind the concurrency key already: try again when some have run`;
    refused.set(entry.asked, faults.exhausted('KEY_QUEUE_FULL', message, 1000));
  }
}
