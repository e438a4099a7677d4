// store/deliveries.ts: what came to a workspace's hooks, in the database.

import {
  type HookDelivery,
  type HookDelivery_State,
  hookDelivery_StateFromJSON as stateFromJSON,
  hookDelivery_StateToJSON as stateToJSON,
} from '#gen/millrace/webhooks/v1/hook_delivery.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Request } from '../request.ts';

// A delivery as it is kept, with what its execution is made from.
export interface Kept {
  workspace: string;
  hookId: string;
  id: string;
  state: 'PENDING' | 'IGNORED' | 'FAILED' | 'REFUSED';
  senderDeliveryId: string;
  automationId: string;
  revision: number;
  creatorId: string;
  input: string | undefined; // JSON; undefined where none could be made
  error: string;
  request: Request | undefined; // undefined: none of it is kept
  headers: Readonly<Record<string, string>>; // redacted
  remoteAddress: string;
  redeliveryOf: string | undefined;
}
interface Row {
  hook: Buffer;
  id: Buffer;
  state: string;
  sender_delivery_id: string;
  execution: Buffer | null;
  error: string;
  query: string;
  body_bytes: number;
  remote_address: string;
  attempts: number;
  duplicates: number;
  redelivery_of: Buffer | null;
  receive_time: Date;
  next_attempt_time: Date | null;
  end_time: Date | null;
  headers?: string; // these two are left out of lists
  body_start?: Buffer | null;
}

const SUMMARY = [
  ...['hook', 'id', 'state', 'sender_delivery_id', 'execution', 'error', 'query', 'body_bytes', 'remote_address', 'attempts'],
  ...['duplicates', 'redelivery_of', 'receive_time', 'next_attempt_time', 'end_time'],
];
const SHOWN_BYTES = 64 * 1024;
const MAX_SENDER_ID = 255;
export const LEASE_SECONDS = 30; // longer than a try may take

// Whoever keeps a delivery makes its execution. When it does not come to that, the worker does once the lease has ended.
export async function insert(tx: Tx, one: Kept): Promise<void> {
  const isOver = one.state !== 'PENDING';
  await tx('hook_deliveries').insert({
    workspace: toBytes('workspace', one.workspace),
    hook: toBytes('hook', one.hookId),
    id: toBytes('delivery', one.id),
    state: one.state,
    sender_delivery_id: one.senderDeliveryId.slice(0, MAX_SENDER_ID),
    automation: toBytes('automation', one.automationId),
    revision: one.revision,
    creator: toBytes('user', one.creatorId),
    input: one.input ?? null,
    error: one.error,
    method: one.request?.method ?? '',
    headers: JSON.stringify(one.headers),
    query: one.request?.query ?? '',
    body: one.request?.body ?? null,
    body_bytes: one.request?.body.length ?? 0,
    remote_address: one.remoteAddress,
    attempts: isOver ? 0 : 1,
    duplicates: 0,
    redelivery_of: one.redeliveryOf ? toBytes('delivery', one.redeliveryOf) : null,
    receive_time: tx.raw('utc_timestamp(6)'),
    last_attempt_time: isOver ? null : tx.raw('utc_timestamp(6)'),
    next_attempt_time: isOver ? null : tx.raw('utc_timestamp(6) + interval ? second', [LEASE_SECONDS]),
    end_time: isOver ? tx.raw('utc_timestamp(6)') : null,
  });
}

export async function get(db: Db, workspace: string, hookId: string, id: string): Promise<HookDelivery> {
  const start = db.raw('left(body, ?) as body_start', [SHOWN_BYTES]);
  const row: Row | undefined = await deliveriesOf(db, workspace, hookId)
    .where('id', toBytes('delivery', id))
    .first([...SUMMARY, 'headers', start]);
  if (!row) throw notFound('delivery', id);
  return toDelivery(row);
}

// The request of a delivery, undefined where none is kept.
export async function request(db: Db, workspace: string, hookId: string, id: string): Promise<Request | undefined> {
  const row = await deliveriesOf(db, workspace, hookId).where('id', toBytes('delivery', id)).first('method', 'headers', 'query', 'body');
  if (!row) throw notFound('delivery', id);
  if (row.body === null) return undefined;
  const headers = JSON.parse(row.headers) as Record<string, string>;
  return { method: row.method, headers, query: row.query, contentType: headers['content-type'] ?? '', body: row.body };
}

// Up to `limit` deliveries before the one named, the newest first: ids sort by time.
export async function list(
  db: Db,
  workspace: string,
  hookId: string,
  states: readonly HookDelivery_State[],
  before: string | undefined,
  limit: number,
): Promise<HookDelivery[]> {
  const query = deliveriesOf(db, workspace, hookId).select(SUMMARY).orderBy('id', 'desc').limit(limit);
  if (states.length > 0) query.whereIn('state', states.map(stateToJSON));
  if (before) query.where('id', '<', toBytes('delivery', before));
  const rows: Row[] = await query;
  return rows.map(toDelivery);
}

// Removes some of a hook's deliveries, and answers whether others may be left.
export async function removeSome(db: Db, workspace: string, hookId: string): Promise<boolean> {
  const some = 500;
  return (await deliveriesOf(db, workspace, hookId).limit(some).delete()) === some;
}

const deliveriesOf = (db: Db, workspace: string, hookId: string): Knex.QueryBuilder =>
  db('hook_deliveries').where({ workspace: toBytes('workspace', workspace), hook: toBytes('hook', hookId, 'hookId') });

const toDelivery = (row: Row): HookDelivery => ({
  id: fromBytes('delivery', row.id),
  hookId: fromBytes('hook', row.hook),
  state: stateFromJSON(row.state),
  senderDeliveryId: row.sender_delivery_id,
  executionId: row.execution ? fromBytes('execution', row.execution) : '',
  error: row.error,
  headers: row.headers ? JSON.parse(row.headers) : {},
  query: row.query,
  body: row.body_start ? row.body_start.toString('utf8') : '',
  bodySizeBytes: row.body_bytes,
  remoteAddress: row.remote_address,
  attemptCount: row.attempts,
  duplicateCount: row.duplicates,
  redeliveryOf: row.redelivery_of ? fromBytes('delivery', row.redelivery_of) : undefined,
  receiveTime: row.receive_time,
  nextAttemptTime: row.next_attempt_time ?? undefined,
  endTime: row.end_time ?? undefined,
});
