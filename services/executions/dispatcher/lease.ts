// The dispatcher's lease: its sign of life on a connection of its own. Validity is counted by the monotonic clock from before the sign was sent, so
// that a process which stood still knows by itself that it may have been given up.
import type { Pool, PoolConnection } from '#platform/db.ts';
import { isDatabaseAway } from '#platform/faults.ts';
import type { Logger } from '#platform/log.ts';
import { repeat } from '#platform/pause.ts';

export interface Lease {
  isValid(): boolean;
  contactMs(): number; // how long the database has been in unbroken contact, on one connection: so it is the same instance
  wake(): void;
  stop(): Promise<void>;
}
interface Deps {
  pool: Pool;
  log: Logger;
  leaseMs: number;
  tickMs: number;
  tick(connection: PoolConnection, sent: () => void): Promise<void>; // renews; calls `sent` when the sign is durable
}

export function openLease({ pool, log, leaseMs, tickMs, tick }: Deps): Lease {
  let connection: PoolConnection | undefined;
  let validUntil = 0;
  let contactSince = 0;
  let isAway = false;

  async function beat(): Promise<void> {
    const before = performance.now();
    if (before > validUntil) contactSince = before; // it was silent for too long itself
    try {
      if (!connection) {
        connection = await pool.getConnection();
        contactSince = before;
      }
      await tick(connection, () => {
        validUntil = before + leaseMs;
      });
      if (isAway) log.info('the database is back');
      isAway = false;
    } catch (error) {
      connection?.destroy();
      connection = undefined;
      if (!isDatabaseAway(error)) throw error;
      if (!isAway) log.warn({ error }, 'the database is away; sessions go on, nothing is claimed');
      isAway = true;
    }
  }

  const beating = repeat(tickMs, beat, log);
  return {
    isValid: () => performance.now() < validUntil,
    contactMs: () => (connection && performance.now() < validUntil ? performance.now() - contactSince : 0),
    wake: beating.wake,
    async stop() {
      await beating.stop();
      connection?.release();
    },
  };
}
