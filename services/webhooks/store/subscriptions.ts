// store/subscriptions.ts: subscriptions to events in the database. Every function takes the workspace and neither answers nor touches what
// belongs to another.

import type { EventSubscription } from '#gen/millrace/webhooks/v1/subscription.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

export interface Row {
  workspace: Buffer;
  id: Buffer;
  name: string;
  url: string;
  types: string;
  disabled: number;
  disabled_reason: string;
  secret_create_time: Date;
  previous_until: Date | null;
  failures: number;
  failing_since: Date | null;
  open_until: Date | null;
  creator: Buffer;
  create_time: Date;
  update_time: Date;
  version: number;
}

export const COLUMNS = [
  ...['workspace', 'id', 'name', 'url', 'types', 'disabled', 'disabled_reason', 'secret_create_time', 'previous_until', 'failures'],
  ...['failing_since', 'open_until', 'creator', 'create_time', 'update_time', 'version'],
];

export async function insert(tx: Tx, workspace: string, made: EventSubscription, sealed: Buffer): Promise<void> {
  await tx('event_subscriptions').insert({
    workspace: toBytes('workspace', workspace),
    id: toBytes('subscription', made.id),
    creator: toBytes('user', made.creatorId),
    create_time: made.createTime,
    secret: sealed,
    ...health(made),
    ...changeable(made),
  });
}

export async function get(db: Db, workspace: string, id: string, field = 'id'): Promise<EventSubscription> {
  const row: Row | undefined = await subscriptionOf(db, workspace, id, field).first(COLUMNS);
  if (!row) throw notFound('subscription', id);
  return toSubscription(row);
}

// The subscription, which nobody else can change before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string): Promise<EventSubscription> {
  const row: Row | undefined = await subscriptionOf(tx, workspace, id).forUpdate().first(COLUMNS);
  if (!row) throw notFound('subscription', id);
  return toSubscription(row);
}

export async function count(db: Db, workspace: string): Promise<number> {
  const [row] = await db('event_subscriptions')
    .where({ workspace: toBytes('workspace', workspace) })
    .count({ n: '*' });
  return Number(row?.n ?? 0);
}

// Up to `limit` subscriptions after the one named, the newest first: ids sort by time.
export async function list(db: Db, workspace: string, after: string | undefined, limit: number): Promise<EventSubscription[]> {
  const query = db('event_subscriptions')
    .where({ workspace: toBytes('workspace', workspace) })
    .select(COLUMNS)
    .orderBy('id', 'desc')
    .limit(limit);
  if (after) query.where('id', '<', toBytes('subscription', after));
  const rows: Row[] = await query;
  return rows.map(toSubscription);
}

// `sealed`: its new secret; the one that it had is kept beside it.
export async function save(tx: Tx, workspace: string, before: EventSubscription, after: EventSubscription, sealed?: Buffer): Promise<void> {
  const secrets = sealed ? { previous_secret: after.previousSecretExpireTime ? tx.ref('secret') : null, secret: sealed } : {};
  const count = await subscriptionOf(tx, workspace, after.id)
    .where({ version: before.version })
    .update({ ...secrets, ...changeable(after), ...health(after) }); // the row is locked: no send can have changed its health meanwhile
  if (count !== 1) throw aborted(`subscription ${after.id} changed at the same time: read it again`);
}

export async function remove(tx: Tx, workspace: string, id: string): Promise<void> {
  if ((await subscriptionOf(tx, workspace, id).delete()) !== 1) throw notFound('subscription', id);
}

const subscriptionOf = (db: Db, workspace: string, id: string, field = 'id'): Knex.QueryBuilder =>
  db('event_subscriptions').where({ workspace: toBytes('workspace', workspace), id: toBytes('subscription', id, field) });

const changeable = (one: EventSubscription) => ({
  name: one.name,
  url: one.url,
  types: JSON.stringify(one.types),
  disabled: one.disabled,
  disabled_reason: one.disabledReason,
  secret_create_time: one.secretCreateTime,
  previous_until: one.previousSecretExpireTime ?? null,
  update_time: one.updateTime,
  version: one.version,
});

const health = (one: EventSubscription) => ({
  failures: one.failureCount,
  failing_since: one.failingSinceTime ?? null,
  open_until: one.pausedUntilTime ?? null,
});

export const toSubscription = (row: Row): EventSubscription => ({
  id: fromBytes('subscription', row.id),
  name: row.name,
  url: row.url,
  types: JSON.parse(row.types),
  disabled: row.disabled === 1,
  disabledReason: row.disabled_reason,
  secret: '',
  secretCreateTime: row.secret_create_time,
  previousSecretExpireTime: row.previous_until ?? undefined,
  failureCount: row.failures,
  failingSinceTime: row.failing_since ?? undefined,
  pausedUntilTime: row.open_until ?? undefined,
  creatorId: fromBytes('user', row.creator),
  createTime: row.create_time,
  updateTime: row.update_time,
  version: row.version,
});
