// store/event-deliveries.ts: events on their way to a workspace's subscriptions, in the database.

import {
  type EventDelivery,
  type EventDelivery_State,
  eventDelivery_StateFromJSON as stateFromJSON,
  eventDelivery_StateToJSON as stateToJSON,
} from '#gen/millrace/webhooks/v1/subscription.ts';
import type { Db, Knex } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

interface Row {
  subscription: Buffer;
  id: Buffer;
  state: string;
  type: string;
  subject: string;
  payload?: string; // left out of lists
  attempts: number;
  response_status: number;
  error: string;
  create_time: Date;
  last_attempt_time: Date | null;
  next_attempt_time: Date | null;
  end_time: Date | null;
}

export const RETRY_HOURS = 24;

const SUMMARY = [
  ...['subscription', 'id', 'state', 'type', 'subject', 'attempts', 'response_status', 'error', 'create_time', 'last_attempt_time'],
  ...['next_attempt_time', 'end_time'],
];

export async function get(db: Db, workspace: string, subscriptionId: string, id: string): Promise<EventDelivery> {
  const row: Row | undefined = await deliveryOf(db, workspace, subscriptionId, id).first([...SUMMARY, 'payload']);
  if (!row) throw notFound('delivery', id);
  return toDelivery(row);
}

// Up to `limit` deliveries before the one named, the newest first: ids sort by time.
export async function list(
  db: Db,
  workspace: string,
  subscriptionId: string,
  states: readonly EventDelivery_State[],
  before: string | undefined,
  limit: number,
): Promise<EventDelivery[]> {
  const query = deliveriesOf(db, workspace, subscriptionId).select(SUMMARY).orderBy('id', 'desc').limit(limit);
  if (states.length > 0) query.whereIn('state', states.map(stateToJSON));
  if (before) query.where('id', '<', toBytes('delivery', before));
  const rows: Row[] = await query;
  return rows.map(toDelivery);
}

// Makes what was given up due again.
export async function redrive(db: Db, workspace: string, subscriptionId: string, id: string): Promise<void> {
  await deliveryOf(db, workspace, subscriptionId, id)
    .whereIn('state', ['DEAD', 'DISCARDED'])
    .update({
      state: 'PENDING',
      attempts: 0,
      next_attempt_time: db.raw('utc_timestamp(6)'),
      retry_until: db.raw('utc_timestamp(6) + interval ? hour', [RETRY_HOURS]),
      end_time: null,
    });
}

export async function discard(db: Db, workspace: string, subscriptionId: string, id: string): Promise<void> {
  await deliveryOf(db, workspace, subscriptionId, id)
    .whereNotIn('state', ['DELIVERED', 'DISCARDED'])
    .update({ state: 'DISCARDED', next_attempt_time: null, end_time: db.raw('utc_timestamp(6)') });
}

// Removes some of a subscription's deliveries, and answers whether others may be left.
export async function removeSome(db: Db, workspace: string, subscriptionId: string): Promise<boolean> {
  const some = 500;
  return (await deliveriesOf(db, workspace, subscriptionId).limit(some).delete()) === some;
}

const deliveriesOf = (db: Db, workspace: string, subscriptionId: string): Knex.QueryBuilder =>
  db('event_deliveries').where({
    workspace: toBytes('workspace', workspace),
    subscription: toBytes('subscription', subscriptionId, 'subscriptionId'),
  });

const deliveryOf = (db: Db, workspace: string, subscriptionId: string, id: string): Knex.QueryBuilder =>
  deliveriesOf(db, workspace, subscriptionId).where('id', toBytes('delivery', id));

const toDelivery = (row: Row): EventDelivery => ({
  id: fromBytes('delivery', row.id),
  subscriptionId: fromBytes('subscription', row.subscription),
  state: stateFromJSON(row.state),
  type: row.type,
  subject: row.subject,
  attemptCount: row.attempts,
  responseStatus: row.response_status,
  error: row.error,
  payload: row.payload ?? '',
  createTime: row.create_time,
  lastAttemptTime: row.last_attempt_time ?? undefined,
  nextAttemptTime: row.next_attempt_time ?? undefined,
  endTime: row.end_time ?? undefined,
});
