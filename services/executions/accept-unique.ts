// Accepting what shall be the only one with its key. Inside the transaction, after the idempotency keys and before the limits.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { reasonsOf } from '#platform/errors.ts';
import { fromBytes } from '#platform/id.ts';
import type { Accepted, Asked, Entry } from './accept.ts';
import * as store from './accept-store.ts';
import * as keys from './accept-unique-store.ts';
import type { Unique } from './execution.ts';

export interface Claimed {
  outcomes: Map<Asked, Accepted | Error>; // of those that found their key taken
  replaced: { by: Asked; workspace: Buffer; execution: Buffer }[]; // to be cancelled after the commit
}
type Keyed = Entry & { asked: Asked & { draft: { unique: Unique } } };

const faults = reasonsOf<keyof typeof ErrorReason>('executions');
const isKeyed = (entry: Entry): entry is Keyed => entry.asked.draft.unique !== null;

export async function claimUnique(connection: store.Connection, entries: readonly Entry[]): Promise<Claimed> {
  const claimed: Claimed = { outcomes: new Map(), replaced: [] };
  const keyed = entries.filter(isKeyed);
  if (keyed.length === 0) return claimed;
  const asks = keyed.map(({ asked }) => ({
    workspace: asked.workspace,
    key: asked.draft.unique.key,
    execution: asked.id,
    ttlMs: asked.draft.unique.ttlMs,
  }));
  const holders = new Map((await keys.lock(connection, asks)).map((row) => [nameOf(row.workspace, row.unique_key), row]));
  for (const { asked } of keyed) {
    const { unique } = asked.draft;
    const name = nameOf(asked.workspace, unique.key);
    const holder = holders.get(name);
    if (!holder) throw new Error('a key that was locked is not there');
    if (holder.execution.equals(asked.id)) continue;
    const { workspace, execution } = holder;
    if (holder.isTaken && unique.onConflict !== 'CANCEL_EXISTING') {
      const id = fromBytes('execution', execution);
      const isUsed = unique.onConflict === 'USE_EXISTING';
      claimed.outcomes.set(asked, isUsed ? { id, row: undefined } : exists(id));
      await (isUsed ? store.pointKey(connection, asked, id) : store.dropKeys(connection, [asked]));
      continue;
    }
    if (holder.isTaken) claimed.replaced.push({ by: asked, workspace, execution });
    const ask = { workspace, key: unique.key, execution: asked.id, ttlMs: unique.ttlMs };
    await keys.take(connection, ask, holder.isTaken ? execution : null);
    holders.set(name, { ...holder, execution: asked.id, isTaken: true });
  }
  return claimed;
}

const nameOf = (workspace: Buffer, key: Buffer): string => `${workspace.toString('hex')}.${key.toString('hex')}`;
const exists = (id: string) => faults.alreadyExists('EXECUTION_EXISTS', `execution ${id} has the key already`, { id });
