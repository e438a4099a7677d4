// Accepting: what is asked for at the same time becomes durable in one commit, with an outcome for each item.
import { openBatch } from '#platform/batch.ts';
import type { Pool } from '#platform/db.ts';
import { Fault, unavailable } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import { isDatabaseAway } from '#platform/faults.ts';
import type { Call } from '#platform/handlers.ts';
import { fromBytes } from '#platform/id.ts';
import { keyHash, reused } from '#platform/idempotency.ts';
import { borrow, type Lender } from './accept-lent.ts';
import { place } from './accept-limits.ts';
import { type Memory, openMemory } from './accept-memory.ts';
import * as store from './accept-store.ts';
import { tell } from './accept-tell.ts';
import { type Claimed, claimUnique } from './accept-unique.ts';
import { type Limit, limitOf } from './concurrency.ts';
import type { Fresh } from './engine/fresh.ts';
import { DEFAULT } from './engine/lanes.ts';
import { atOnce, isUnlike } from './engine/sql.ts';
import { nextTag } from './engine/tags.ts';
import type { Blocked, Draft, Row } from './execution.ts';
import { mustBeOpen, type Plan, planFor, revisionFor, selectorFor } from './plan.ts';
import type { Admit } from './quota.ts';
import type { Revisions } from './revisions.ts';
import type { Labels } from './selector.ts';

export interface Asked {
  id: Buffer;
  workspace: Buffer;
  creator: Buffer;
  lane: number; // of the default queue, until the automation is known
  draft: Draft;
  key: Key | undefined;
  traceparent: string | null;
}
export interface Accepted {
  id: string;
  row: Row | undefined; // undefined: an earlier request with the same key made it
}
export interface Key {
  hash: Buffer;
  request: Buffer;
}
// An execution on its way into the tables. It starts now, later, waits for a slot of its limit, or is skipped.
export interface Entry {
  asked: Asked;
  plan: Plan;
  row: Row;
  tag: number;
  limit: Limit | null;
  waits: boolean; // behind its limit
  skips: boolean; // never starts, for its limit
}
interface Wanted {
  asked: Asked;
  automation: Buffer;
  number: number;
  limit: Limit | null;
  blocked: Blocked | null;
  selector: Labels;
}
export type Outcomes = Map<Asked, Accepted | Error>;

export interface Deps {
  lender?: Lender; // undefined: what is accepted is claimed later
  pool: Pool;
  revisions: Revisions;
  admit: Admit;
  laneOf(workspace: Buffer, queue: string, selector: Labels): Promise<number>;
  // After each commit, with the lanes where something may start now, the keys behind which older ones shall make room, those to be cancelled, and
  // all that may start now, unless something of it is not plain.
  accepted(
    lanes: ReadonlySet<number>,
    hasTimers: boolean,
    crowded: ReadonlySet<string>,
    replaced: Claimed['replaced'],
    fresh: readonly Fresh[],
  ): void;
}

const MAX_QUEUE = 2000;
const ROW_BYTES = 500;

export const keyOf = (call: Pick<Call, 'caller' | 'method' | 'requestId' | 'requestHash'>): Key | undefined =>
  call.requestId ? { hash: keyHash(call), request: call.requestHash } : undefined;

export function openAccept(deps: Deps): (asked: Asked) => Promise<Accepted> {
  const memory = openMemory();
  return openBatch<Asked, Accepted>({
    name: 'executions.accept',
    maxQueue: MAX_QUEUE,
    sizeOf: ({ draft }) => ROW_BYTES + draft.inputBytes,
    async run(items) {
      const writing = { isCommitting: false };
      const connection = await deps.pool.getConnection();
      try {
        return (await commitAtOnce(deps, memory, connection, items, writing)) ?? (await commit(deps, memory, connection, items, writing));
      } catch (error) {
        await connection.query('ROLLBACK').catch(() => connection.destroy());
        if (!writing.isCommitting || !isCutOff(error)) throw error;
        throw unavailable('whether the execution was accepted is not known: call again with the same request_id', 1000, error);
      } finally {
        connection.release();
      }
    },
  }).add;
}

// In one round trip, by what was known before. Undefined when that does not do: then nothing was written.
async function commitAtOnce(
  deps: Deps,
  memory: Memory,
  connection: store.Connection,
  items: readonly Asked[],
  writing: { isCommitting: boolean },
  mayBorrow = true,
): Promise<(Accepted | Error)[] | undefined> {
  const known = memory.recall(items);
  if (!known) return undefined;
  const outcomes: Outcomes = new Map();
  const entries = await plan(deps, items, outcomes, known);
  if (outcomes.size > 0) return undefined; // what would be refused may be right by now
  const lent = deps.lender && mayBorrow ? await borrow(deps.lender, entries, known.time) : undefined;
  failpoint('accept.recalled');
  const alike = [store.alike(connection, store.workspacesOf(items), [...known.automations.values()]), ...(lent?.fence ?? [])];
  writing.isCommitting = true;
  try {
    await atOnce(connection, memory.clock, [...alike, ...store.additions(connection, entries, new Map(), lent?.claims)]);
  } catch (error) {
    if (!isUnlike(error)) throw error;
    await connection.query('ROLLBACK');
    writing.isCommitting = false;
    if (lent) {
      lent.drop();
      return commitAtOnce(deps, memory, connection, items, writing, false);
    }
    memory.forget(items);
    return undefined;
  }
  tell(deps, entries, outcomes, lent);
  return items.map((asked) => outcomes.get(asked) as Accepted);
}

// Safe to repeat after an error: then nothing was committed.
async function commit(
  deps: Deps,
  memory: Memory,
  connection: store.Connection,
  items: readonly Asked[],
  writing: { isCommitting: boolean },
): Promise<(Accepted | Error)[]> {
  const outcomes: Outcomes = new Map();
  const looked = await store.look(connection, items);
  memory.keep(items, looked);
  failpoint('accept.looked');
  settleKeys(items, looked.keys, outcomes);
  let entries = await plan(deps, items, outcomes, looked);
  const isLocking = entries.some(({ asked, limit }) => asked.key || asked.draft.unique || limit);
  if (isLocking) await connection.query('BEGIN');
  if (entries.some(({ asked }) => asked.key)) settleKeys(items, await store.claimKeys(connection, entries), outcomes);
  failpoint('accept.keyed');
  entries = entries.filter(({ asked }) => !outcomes.has(asked));
  const unique = await claimUnique(connection, entries);
  for (const [asked, outcome] of unique.outcomes) outcomes.set(asked, outcome);
  if (unique.outcomes.size > 0) entries = entries.filter(({ asked }) => !outcomes.has(asked));
  const { takes, crowded, refused } = await place(connection, entries);
  for (const [asked, fault] of refused) outcomes.set(asked, fault);
  if (refused.size > 0) entries = entries.filter(({ asked }) => !refused.has(asked));
  failpoint('accept.before_commit');
  writing.isCommitting = true;
  await connection.query(store.packet(store.additions(connection, entries, takes), !isLocking));
  tell(
    deps,
    entries,
    outcomes,
    undefined,
    crowded,
    unique.replaced.filter(({ by }) => !refused.has(by)),
  );
  return items.map((asked) => outcomes.get(asked) as Accepted | Error);
}

// The connection broke off: whether the commit was made is not known.
const isCutOff = (error: unknown): boolean => isDatabaseAway(error) || (error as { code?: string }).code === 'ER_CONNECTION_KILLED';

// Answers the items whose keys made something before, or belong to another item of the batch.
function settleKeys(items: readonly Asked[], rows: readonly store.KeyRow[], outcomes: Outcomes): void {
  if (rows.length === 0) return;
  const used = new Map(rows.map((row) => [hex(row.key_hash), row]));
  for (const asked of items) {
    const row = asked.key && used.get(hex(asked.key.hash));
    if (!row || row.resource === fromBytes('execution', asked.id)) continue;
    outcomes.set(asked, asked.key?.request.equals(row.request_hash) ? { id: row.resource, row: undefined } : reused());
  }
}

// What becomes of each item that is not answered yet.
async function plan(
  { revisions, admit, laneOf }: Deps,
  items: readonly Asked[],
  outcomes: Outcomes,
  { automations, shut, time: now }: store.Looked,
): Promise<Entry[]> {
  const wanted: Wanted[] = [];
  const entries: Entry[] = [];
  for (const asked of items) {
    if (outcomes.has(asked)) continue;
    await attempt(asked, outcomes, async () => {
      const found = automations.get(hex(asked.draft.automation));
      const number = revisionFor(asked.draft, asked.workspace, found);
      const queue = found?.queue ?? DEFAULT;
      const blocked = mustBeOpen(shut, asked.workspace, queue);
      const selector = selectorFor(found, shut, asked.workspace, queue);
      if (found?.queue || Object.keys(selector).length > 0) asked.lane = await laneOf(asked.workspace, queue, selector);
      const limit = limitOf(asked.draft.automationId, found?.concurrency ?? null, asked.draft.input);
      wanted.push({ asked, automation: asked.draft.automation, number, limit, blocked, selector });
    });
  }
  await revisions.load(wanted);
  for (const { asked, automation, number, limit, blocked, selector } of wanted) {
    await attempt(asked, outcomes, async () => {
      const made = planFor(asked.draft, number, revisions.get({ automation, number }), now);
      await admit(asked.workspace);
      entries.push({
        asked,
        plan: made,
        row: { ...rowOf(asked, made, limit, now), blocked, selector },
        tag: nextTag(),
        limit,
        waits: false,
        skips: false,
      });
    });
  }
  return entries;
}

// A fault is the item's own outcome; anything else is everyone's.
async function attempt(asked: Asked, outcomes: Outcomes, work: () => void | Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    outcomes.set(asked, error);
  }
}

const rowOf = ({ id, workspace, creator, draft }: Asked, { revision, isLater, startTime }: Plan, limit: Limit | null, now: Date): Row => ({
  id,
  workspace,
  automation: draft.automation,
  revision,
  state: isLater ? 'SCHEDULED' : 'QUEUED',
  version: 1,
  creator,
  retry_of: draft.retryOf,
  labels: draft.labels,
  priority: draft.priority,
  limit_key: limit?.key ?? null,
  error: null,
  attempt_count: 0,
  schedule_time: draft.scheduleTime,
  create_time: now,
  start_time: null,
  end_time: null,
  input: draft.inputJson,
  output: null,
  running_state: null,
  progress_fraction: null,
  progress_message: null,
  timer: isLater ? 'START' : null,
  due_time: isLater ? startTime : null,
});

const hex = (bytes: Buffer): string => bytes.toString('hex');
