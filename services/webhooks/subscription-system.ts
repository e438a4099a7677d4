// subscription-system.ts: what works across workspaces: events find the subscriptions that want them, and the sender takes what is due
// wherever it belongs. Handlers may not import it. Only the database's clock decides what is due.
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, newBytes, toBytes } from '#platform/id.ts';
import { RETRY_HOURS } from './store/event-deliveries.ts';

export interface Subscriber {
  workspace: string;
  id: string;
  types: string[];
  createTime: Date;
}
// One event for one subscription.
export interface Sending {
  workspace: string;
  subscriptionId: string;
  type: string;
  subject: string;
  payload: string;
}
// A subscription with something due.
export interface Ready {
  workspace: string;
  id: string;
  url: string;
  sealed: readonly Buffer[]; // the secrets to sign with
  isSuspect: boolean; // too many sends have failed: one is tried
}
export interface Due {
  workspace: string;
  subscriptionId: string;
  id: string;
  payload: string;
  attempts: number; // before this one
  isLast: boolean; // a failure makes a dead letter
}
export type Outcome = { status: number } | { status: number; error: string; retryMs: number };

const SUSPECT_AFTER = 5;
const PROBE_SECONDS = 30;
const MAX_OPEN_SECONDS = 600;
const DISABLE_AFTER_DAYS = 5;
const LEASE_SECONDS = 60; // longer than a send may take
const SWEEP_ROWS = 500;
const MAX_ERROR = 500;

export async function workspaces(db: Db): Promise<Set<string>> {
  const rows: { workspace: Buffer }[] = await db('event_subscriptions').where({ disabled: false }).distinct('workspace');
  return new Set(rows.map(({ workspace }) => fromBytes('workspace', workspace)));
}

export async function subscribers(db: Db, of: readonly string[]): Promise<Subscriber[]> {
  const keys = of.map((workspace) => toBytes('workspace', workspace));
  const rows: { workspace: Buffer; id: Buffer; types: string; create_time: Date }[] = await db('event_subscriptions')
    .whereIn('workspace', keys)
    .where({ disabled: false })
    .select('workspace', 'id', 'types', 'create_time');
  return rows.map((row) => ({
    workspace: fromBytes('workspace', row.workspace),
    id: fromBytes('subscription', row.id),
    types: JSON.parse(row.types),
    createTime: row.create_time,
  }));
}

export async function insert(tx: Tx, sendings: readonly Sending[]): Promise<void> {
  if (sendings.length === 0) return;
  const now = tx.raw('utc_timestamp(6)');
  await tx('event_deliveries').insert(
    sendings.map((one) => ({
      workspace: toBytes('workspace', one.workspace),
      subscription: toBytes('subscription', one.subscriptionId),
      id: newBytes(),
      state: 'PENDING',
      type: one.type,
      subject: one.subject,
      payload: one.payload,
      attempts: 0,
      response_status: 0,
      error: '',
      create_time: now,
      retry_until: tx.raw('utc_timestamp(6) + interval ? hour', [RETRY_HOURS]),
      next_attempt_time: now,
    })),
  );
}

// Subscriptions that are sent to and have something due, in no order, so that none always comes last.
export async function ready(db: Db, limit: number): Promise<Ready[]> {
  const rows: { workspace: Buffer; id: Buffer; url: string; secret: Buffer; previous: Buffer | null; failures: number }[] = await db(
    'event_subscriptions as s',
  )
    .where({ disabled: false })
    .whereRaw('(open_until is null or open_until <= utc_timestamp(6))')
    .whereRaw('exists (select 1 from event_deliveries d where d.subscription = s.id and d.next_attempt_time <= utc_timestamp(6))')
    .select(
      'workspace',
      'id',
      'url',
      'secret',
      'failures',
      db.raw('if(previous_until > utc_timestamp(6), previous_secret, null) as previous'),
    )
    .orderByRaw('rand()')
    .limit(limit);
  return rows.map((row) => ({
    workspace: fromBytes('workspace', row.workspace),
    id: fromBytes('subscription', row.id),
    url: row.url,
    sealed: row.previous ? [row.secret, row.previous] : [row.secret],
    isSuspect: row.failures >= SUSPECT_AFTER,
  }));
}

// Lets one process try a receiver that has failed too often, while the others wait.
export const mayProbe = async (db: Db, { workspace, id }: Ready): Promise<boolean> =>
  (await subscriptionOf(db, workspace, id)
    .whereRaw('(open_until is null or open_until <= utc_timestamp(6))')
    .update({ open_until: db.raw('utc_timestamp(6) + interval ? second', [PROBE_SECONDS]) })) === 1;

// Claims what is due for a subscription. Until the lease ends nobody else sends it.
export const claimDue = (db: Db, { workspace, id }: Pick<Ready, 'workspace' | 'id'>, limit: number): Promise<Due[]> =>
  db.transaction(async (tx) => {
    const rows: { id: Buffer; payload: string; attempts: number; is_last: number }[] = await tx('event_deliveries')
      .where({ subscription: toBytes('subscription', id) })
      .where('next_attempt_time', '<=', tx.raw('utc_timestamp(6)'))
      .orderBy('next_attempt_time')
      .limit(limit)
      .select('id', 'payload', 'attempts', tx.raw('retry_until <= utc_timestamp(6) as is_last'))
      .forUpdate()
      .skipLocked();
    const dues = rows.map((row) => ({
      workspace,
      subscriptionId: id,
      id: fromBytes('delivery', row.id),
      payload: row.payload,
      attempts: row.attempts,
      isLast: row.is_last === 1,
    }));
    for (const due of dues) {
      await deliveryOf(tx, due).update({
        attempts: tx.raw('attempts + 1'),
        last_attempt_time: tx.raw('utc_timestamp(6)'),
        next_attempt_time: tx.raw('utc_timestamp(6) + interval ? second', [LEASE_SECONDS]),
      });
    }
    return dues;
  });

// How a send ended. What was discarded meanwhile stays so.
export async function settle(db: Db, due: Due, outcome: Outcome): Promise<void> {
  const open = deliveryOf(db, due).whereNotNull('next_attempt_time');
  const over = { next_attempt_time: null, end_time: db.raw('utc_timestamp(6)') };
  if (!('error' in outcome)) await open.update({ state: 'DELIVERED', response_status: outcome.status, error: '', ...over });
  else {
    const failed = { response_status: outcome.status, error: outcome.error.slice(0, MAX_ERROR) };
    const later = db.raw('utc_timestamp(6) + interval ? microsecond', [Math.round(outcome.retryMs * 1000)]);
    await open.update(due.isLast ? { state: 'DEAD', ...failed, ...over } : { state: 'RETRYING', ...failed, next_attempt_time: later });
  }
}

export const receiverIsWell = (db: Db, { workspace, subscriptionId }: Due): Promise<number> =>
  subscriptionOf(db, workspace, subscriptionId)
    .where((either) => either.where('failures', '>', 0).orWhereNotNull('open_until'))
    .update({ failures: 0, failing_since: null, open_until: null });

// Counts a failure. From the fifth in a row on nothing is sent for 10 s, 20 s … 10 min, and one send then tells how it is. After days of
// failures, or at once when the receiver says that it is gone, the subscription is disabled. Columns are set from left to right.
export async function receiverFailed(db: Db, { workspace, subscriptionId }: Due, isGone: boolean): Promise<void> {
  await subscriptionOf(db, workspace, subscriptionId).update({
    open_until: db.raw(
      'if(failures + 1 >= ?, utc_timestamp(6) + interval least(?, 10 * pow(2, least(failures + 1 - ?, 10))) second, open_until)',
      [SUSPECT_AFTER, MAX_OPEN_SECONDS, SUSPECT_AFTER],
    ),
    failing_since: db.raw('coalesce(failing_since, utc_timestamp(6))'),
    failures: db.raw('failures + 1'),
  });
  const disabling = subscriptionOf(db, workspace, subscriptionId).where({ disabled: false });
  if (!isGone) disabling.where('failing_since', '<', db.raw('utc_timestamp(6) - interval ? day', [DISABLE_AFTER_DAYS]));
  await disabling.update({
    disabled: true,
    disabled_reason: isGone ? 'its receiver answered 410 Gone' : `its receiver failed for ${DISABLE_AFTER_DAYS} days`,
    update_time: db.raw('utc_timestamp(6)'),
    version: db.raw('version + 1'),
  });
}

const subscriptionOf = (db: Db, workspace: string, id: string) =>
  db('event_subscriptions').where({ workspace: toBytes('workspace', workspace), id: toBytes('subscription', id) });

const deliveryOf = (db: Db, { workspace, subscriptionId, id }: Pick<Due, 'workspace' | 'subscriptionId' | 'id'>) =>
  db('event_deliveries').where({
    workspace: toBytes('workspace', workspace),
    subscription: toBytes('subscription', subscriptionId),
    id: toBytes('delivery', id),
  });

// Forgets deliveries past their age.
export async function sweep(db: Db, retentionDays: number): Promise<void> {
  for (let left = true; left; ) {
    const old = db('event_deliveries').where('create_time', '<', db.raw('utc_timestamp(6) - interval ? day', [retentionDays]));
    left = (await old.limit(SWEEP_ROWS).delete()) === SWEEP_ROWS;
  }
}
