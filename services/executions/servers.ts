// Automation servers as they announce themselves. Who owns a server, and whether it is lost, is the dispatchers' business.
import type { Db } from '#platform/db.ts';

export interface Server {
  id: Buffer;
  endpoint: string;
  labels: Record<string, string>;
  slots: number;
  sandboxTier: number;
  minimumTier: number;
  protocol: number;
  draining: boolean;
}

const LEASE_SECONDS = 10; // the time to be taken over and to open a session: the first renewal extends it
const TOLD = ['endpoint', 'labels', 'slots', 'tier', 'minimum_tier', 'protocol', 'draining'];

// Answers whether the dispatchers have something to look at. A server that was given up and is back starts with a new lease, a short one: if it
// dies before its first renewal, nobody waits long for it.
export async function register(db: Db, server: Server): Promise<boolean> {
  const { id, endpoint, labels, slots, sandboxTier, minimumTier, protocol, draining } = server;
  return db.transaction(async (tx) => {
    const before = await tx('servers').select('state', 'endpoint', 'owner', 'draining').where({ id }).forUpdate().first();
    const lease = `NOW(6) + INTERVAL ${LEASE_SECONDS} SECOND`;
    await tx.raw(
      `INSERT INTO servers (id, endpoint, labels, slots, tier, minimum_tier, protocol, draining, state, register_time, seen_time, owner, owner_epoch, lease_until)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'LIVE', NOW(6), NOW(6), NULL, 0, ${lease})
       ON DUPLICATE KEY UPDATE ${TOLD.map((column) => `${column} = VALUES(${column})`).join(', ')}, seen_time = NOW(6),
         lease_until = IF(state = 'LIVE', lease_until, ${lease}), state = 'LIVE'`,
      [id, endpoint, JSON.stringify(labels), slots, sandboxTier, minimumTier, protocol, draining],
    );
    return before?.state !== 'LIVE' || before.owner === null || before.endpoint !== endpoint || Boolean(before.draining) !== draining;
  });
}
