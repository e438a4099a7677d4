// Idempotency keys: the first request with a key makes the resource, the same request again answers with it, another one is refused.
// Source: draft-ietf-httpapi-idempotency-key-header. Keys count by workspace, caller and method, for 24 hours.
import { createHash } from 'node:crypto';
import type { Db, Tx } from './db.ts';
import { type Fault, fault } from './errors.ts';
import type { Call } from './handlers.ts';

export const HOURS = 24;

export const keyHash = (call: Pick<Call, 'caller' | 'method' | 'requestId'>): Buffer =>
  createHash('sha256').update([call.caller.workspace, call.caller.user, call.method, call.requestId].join('\n')).digest();

export const reused = (): Fault =>
  fault(
    'ALREADY_EXISTS',
    'IDEMPOTENCY_KEY_REUSED',
    'the idempotency key was used before with another request: use a new key for a new request',
  );

// Undefined: go on and make `id`. Else the id that an earlier request with the same key made. Waits for one that is being made now.
export async function claimKey(tx: Tx, call: Call, id: string): Promise<string | undefined> {
  if (!call.requestId) return undefined;
  const key_hash = keyHash(call);
  const insert = tx('idempotency').insert({ key_hash, request_hash: call.requestHash, resource: id, create_time: tx.raw('NOW(6)') });
  await tx.raw(`${insert.toQuery()} ON DUPLICATE KEY UPDATE key_hash = key_hash`);
  const row = await tx('idempotency').select('request_hash', 'resource').where({ key_hash }).first();
  if (row.resource === id) return undefined;
  if (!call.requestHash.equals(row.request_hash)) throw reused();
  return row.resource;
}

// Forgets keys and inbox rows that no longer count.
export async function sweepKeys(db: Db): Promise<void> {
  await db('idempotency')
    .where('create_time', '<', db.raw(`NOW(6) - INTERVAL ${HOURS} HOUR`))
    .limit(10_000)
    .delete();
  await db('inbox').where('create_time', '<', db.raw('NOW(6) - INTERVAL 14 DAY')).limit(10_000).delete();
}
