// hook-system.ts: what works across workspaces: the sender of a request names a hook and no workspace, and the worker takes what is due
// wherever it belongs. Handlers may not import it. Only the database's clock decides what is due.
import type { Hook } from '#gen/millrace/webhooks/v1/hook.ts';
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Key } from './request.ts';
import { LEASE_SECONDS } from './store/deliveries.ts';
import { COLUMNS, type Row, toHook } from './store/hooks.ts';

export interface Found {
  workspace: string;
  hook: Hook;
  sealed: readonly Buffer[]; // the secrets that count now
}
// What its execution is made from.
export interface Due {
  workspace: string;
  hookId: string;
  id: string;
  automationId: string;
  revision: number;
  creatorId: string;
  input: string;
  attempts: number; // before this one
  ageSeconds: number;
  quietSeconds: number; // since the last attempt began; 0 when there was none
}
interface DueRow {
  workspace: Buffer;
  hook: Buffer;
  id: Buffer;
  automation: Buffer;
  revision: number;
  creator: Buffer;
  input: string;
  attempts: number;
  age: number;
  quiet: number | null;
}

const SWEEP_ROWS = 500;

export async function find(db: Db, id: Buffer): Promise<Found | undefined> {
  const row: (Row & { secret: Buffer; previous_secret: Buffer | null }) | undefined = await db('hooks')
    .where({ id })
    .first([...COLUMNS, 'secret', db.raw('if(previous_until > utc_timestamp(6), previous_secret, null) as previous_secret')]);
  if (!row) return undefined;
  return {
    workspace: fromBytes('workspace', row.workspace),
    hook: toHook(row),
    sealed: row.previous_secret ? [row.secret, row.previous_secret] : [row.secret],
  };
}

// Takes the keys for a delivery. Answers the delivery that has one of them already: then none counts for this one.
// Keys are taken in order of their bytes, so that two requests never wait for each other in a circle.
export async function claimKeys(tx: Tx, hookId: string, deliveryId: string, keys: readonly Key[]): Promise<string | undefined> {
  const hook = toBytes('hook', hookId);
  const delivery = toBytes('delivery', deliveryId);
  for (const { hash, seconds } of keys.toSorted((a, b) => Buffer.compare(a.hash, b.hash))) {
    await tx.raw(
      `INSERT INTO hook_keys (hook, key_hash, delivery, expire_time) VALUES (?, ?, ?, utc_timestamp(6) + interval ? second)
       ON DUPLICATE KEY UPDATE delivery = if(expire_time < utc_timestamp(6), VALUES(delivery), delivery),
         expire_time = if(expire_time < utc_timestamp(6), VALUES(expire_time), expire_time)`,
      [hook, hash, delivery, seconds],
    );
    const row: { delivery: Buffer } = await tx('hook_keys').where({ hook, key_hash: hash }).first('delivery');
    if (!row.delivery.equals(delivery)) return fromBytes('delivery', row.delivery);
  }
  return undefined;
}

// The delivery that has one of the keys now. Undefined when all are free.
export async function holderOf(db: Db, hookId: string, keys: readonly Key[]): Promise<string | undefined> {
  if (keys.length === 0) return undefined;
  const hashes = keys.map(({ hash }) => hash);
  const taken = db('hook_keys')
    .where({ hook: toBytes('hook', hookId) })
    .whereIn('key_hash', hashes);
  const row: { delivery: Buffer } | undefined = await taken.where('expire_time', '>=', db.raw('utc_timestamp(6)')).first('delivery');
  return row && fromBytes('delivery', row.delivery);
}

// Counts a request that started nothing because of an earlier one, and tells how that one is. Undefined when it is no longer kept.
export async function countDuplicate(db: Db, which: Which): Promise<{ state: string; executionId: string } | undefined> {
  await deliveryOf(db, which).increment('duplicates');
  const row: { state: string; execution: Buffer | null } | undefined = await deliveryOf(db, which).first('state', 'execution');
  return row && { state: row.state, executionId: row.execution ? fromBytes('execution', row.execution) : '' };
}

type Which = Pick<Due, 'workspace' | 'hookId' | 'id'>;
const deliveryOf = (db: Db, { workspace, hookId, id }: Which) =>
  db('hook_deliveries').where({ workspace: toBytes('workspace', workspace), hook: toBytes('hook', hookId), id: toBytes('delivery', id) });

const DUE = [
  ...['workspace', 'hook', 'id', 'automation', 'revision', 'creator', 'input', 'attempts'],
  'timestampdiff(second, receive_time, utc_timestamp(6)) as age',
  'timestampdiff(second, last_attempt_time, utc_timestamp(6)) as quiet',
].join(', ');

// Claims deliveries that are due. Until the lease ends nobody else tries them.
export const claimDue = (db: Db, limit: number): Promise<Due[]> =>
  db.transaction(async (tx) => {
    const due = tx('hook_deliveries')
      .where('next_attempt_time', '<=', tx.raw('utc_timestamp(6)'))
      .orderBy('next_attempt_time')
      .limit(limit);
    const rows: DueRow[] = await due.select(tx.raw(DUE)).forUpdate().skipLocked();
    const dues = rows.map(toDue);
    for (const one of dues) {
      await deliveryOf(tx, one).update({
        attempts: tx.raw('attempts + 1'),
        last_attempt_time: tx.raw('utc_timestamp(6)'),
        next_attempt_time: tx.raw('utc_timestamp(6) + interval ? second', [LEASE_SECONDS]),
      });
    }
    return dues;
  });

const toDue = (row: DueRow): Due => ({
  workspace: fromBytes('workspace', row.workspace),
  hookId: fromBytes('hook', row.hook),
  id: fromBytes('delivery', row.id),
  automationId: fromBytes('automation', row.automation),
  revision: row.revision,
  creatorId: fromBytes('user', row.creator),
  input: row.input,
  attempts: row.attempts,
  ageSeconds: row.age,
  quietSeconds: row.quiet ?? 0,
});

// How a try ended. What is over stays so.
export async function settle(db: Db, due: Due, outcome: { executionId: string } | { error: string; retryMs?: number }): Promise<void> {
  const over = { next_attempt_time: null, end_time: db.raw('utc_timestamp(6)') };
  const open = deliveryOf(db, due).whereNotNull('next_attempt_time');
  if ('executionId' in outcome)
    await open.update({ state: 'DELIVERED', execution: toBytes('execution', outcome.executionId), error: '', ...over });
  else if (outcome.retryMs === undefined) await open.update({ state: 'FAILED', error: outcome.error, ...over });
  else {
    const later = db.raw('utc_timestamp(6) + interval ? microsecond', [Math.round(outcome.retryMs * 1000)]);
    await open.update({ state: 'RETRYING', error: outcome.error, next_attempt_time: later });
  }
}

// Forgets deliveries past their age and keys that count no more. What is still to be done is kept.
export async function sweep(db: Db, retentionDays: number): Promise<void> {
  for (let left = true; left; ) {
    const old = db('hook_deliveries')
      .where('receive_time', '<', db.raw('utc_timestamp(6) - interval ? day', [retentionDays]))
      .whereNull('next_attempt_time');
    left = (await old.limit(SWEEP_ROWS).delete()) === SWEEP_ROWS;
  }
  for (let left = true; left; )
    left = (await db('hook_keys').where('expire_time', '<', db.raw('utc_timestamp(6)')).limit(SWEEP_ROWS).delete()) === SWEEP_ROWS;
}
