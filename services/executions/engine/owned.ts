// Whose a server is: the first part of every fence.
import { format, hex, unless } from './sql.ts';

// A server in the epoch in which it became ours.
export interface Held {
  id: Buffer;
  epoch: number;
}

// Locks as lockOwned, and fails with UNLIKE unless all of them are ours still, in these epochs.
export function unlessOwned(owner: Buffer, servers: readonly Held[], which?: 'NOT_DRAINED'): string {
  const inOrder = [...servers].sort((a, b) => Buffer.compare(a.id, b.id));
  const held = inOrder.map(({ id, epoch }) => format('(id = ? AND owner_epoch = ?)', [id, epoch])).join(' OR ');
  return unless(
    `COUNT(*) = ${servers.length}`,
    format(`FROM servers WHERE (${held}) AND ${OWNED}${which ? NOT_DRAINED : ''} ${SHARED}`, [owner]),
  );
}

export interface Owned {
  id: Buffer;
  owner_epoch: number;
}
export const epochsOf = (owned: readonly Owned[]): Map<string, number> =>
  new Map(owned.map(({ id, owner_epoch }) => [hex(id), owner_epoch]));

// Renewing the lease or taking a server over waits until the transaction has ended.
const SHARED = 'LOCK IN SHARE MODE';
const OWNED = "owner = ? AND state = 'LIVE'";
const NOT_DRAINED = ' AND NOT drained';
export const lockOwned = (owner: Buffer, servers: readonly Buffer[], which?: 'NOT_DRAINED'): string =>
  format(`SELECT id, owner_epoch FROM servers WHERE id IN (?) AND ${OWNED}${which ? NOT_DRAINED : ''} ORDER BY id ${SHARED}`, [
    [...servers].sort((a, b) => Buffer.compare(a, b)),
    owner,
  ]);
