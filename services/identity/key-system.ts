// key-system.ts: the sealed signing keys in the database, shared by every process of identity.
import type { Db } from '#platform/db.ts';

export interface SealedKey {
  kid: string;
  sealed: Buffer;
  activeTime: number; // seconds
}

const LOCK_SECONDS = 10;

export async function list(db: Db): Promise<{ keys: SealedKey[]; now: number }> {
  const [[{ now }]] = await db.raw('SELECT UNIX_TIMESTAMP() AS now');
  const rows = await db('signing_keys').select('kid', 'sealed', db.raw('UNIX_TIMESTAMP(active_time) AS active_time'));
  return { now, keys: rows.map(({ kid, sealed, active_time }) => ({ kid, sealed, activeTime: Math.floor(Number(active_time)) })) };
}

export async function insert(db: Db, key: SealedKey): Promise<void> {
  const active_time = db.raw('FROM_UNIXTIME(?)', [key.activeTime]);
  await db('signing_keys').insert({ kid: key.kid, sealed: key.sealed, create_time: db.raw('NOW(6)'), active_time });
}

export const drop = (db: Db, kids: readonly string[]): Promise<number> => db('signing_keys').whereIn('kid', kids).delete();

// One process at a time makes and drops keys. The lock belongs to a connection of its own, so it is let go after the work is committed.
export async function alone<T>(db: Db, work: () => Promise<T>): Promise<T> {
  const { database } = db.client.config.connection as { database: string };
  return db.transaction(async (tx) => {
    const [[{ got }]] = await tx.raw('SELECT GET_LOCK(?, ?) AS got', [`${database} keys`, LOCK_SECONDS]);
    if (got !== 1) throw new Error(`another process has been changing the signing keys for ${LOCK_SECONDS} s`);
    try {
      return await work();
    } finally {
      await tx.raw('SELECT RELEASE_LOCK(?)', [`${database} keys`]);
    }
  });
}
