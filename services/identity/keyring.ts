// keyring.ts: the signing keys that this process holds open, renewed from the database, and rotated by whichever process is first.
import { randomBytes } from 'node:crypto';
import type { Db } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import { StartFault } from '#platform/module.ts';
import { LONGEST_ACCESS_SECONDS } from './config.ts';
import * as store from './key-system.ts';
import type { Rotation, SigningKey } from './keys.ts';
import * as keys from './keys.ts';

export interface Keyring {
  signer(now: number): SigningKey; // now: seconds, by the database's clock
  jwks(): string;
  refresh(): Promise<void>;
}
interface Options {
  db: Db;
  secret: Uint8Array;
  rotation: Rotation;
  log: Logger;
}

export const REFRESH_MS = 15_000;

const VERIFIERS_CACHE_SECONDS = 300;
const NONCE_BYTES = 12;

// A key is published for a verifier's cache period before it signs, and besides for the time that processes take to notice it.
export const rotationOf = (keyDays: number): Rotation => ({
  periodSeconds: keyDays * 24 * 3600,
  publishSeconds: VERIFIERS_CACHE_SECONDS + (4 * REFRESH_MS) / 1000,
  retainSeconds: LONGEST_ACCESS_SECONDS + VERIFIERS_CACHE_SECONDS,
});

export async function openKeyring({ db, secret, rotation, log }: Options): Promise<Keyring> {
  let held: SigningKey[] = [];

  async function load(): Promise<number> {
    const { keys: sealed, now } = await store.list(db);
    const known = new Map(held.map((key) => [key.kid, key]));
    held = sealed.flatMap((row) => {
      const key = known.get(row.kid);
      return key ? { ...key, activeTime: row.activeTime } : opened(row);
    });
    return now;
  }

  function opened({ kid, sealed, activeTime }: store.SealedKey): SigningKey[] {
    try {
      return [keys.open(kid, sealed, secret, activeTime)];
    } catch (error) {
      log.error({ error, kid }, 'a signing key cannot be opened with MILLRACE_IDENTITY_KEY_SECRET, so it is not published');
      return [];
    }
  }

  async function rotate(): Promise<void> {
    const now = await load();
    const { makeActiveAt, drop } = keys.plan(held, now, rotation);
    if (makeActiveAt !== undefined) {
      const made = keys.generate(makeActiveAt);
      await store.insert(db, { kid: made.kid, sealed: keys.seal(made, secret, randomBytes(NONCE_BYTES)), activeTime: makeActiveAt });
      log.info({ kid: made.kid, activeTime: new Date(makeActiveAt * 1000) }, 'a signing key was made');
    }
    if (drop.length > 0) {
      await store.drop(db, drop);
      log.info({ kids: drop }, 'signing keys were dropped: their last tokens have expired');
    }
    await load();
  }

  async function refresh(): Promise<void> {
    const now = await load();
    const { makeActiveAt, drop } = keys.plan(held, now, rotation);
    if (makeActiveAt !== undefined || drop.length > 0) await store.alone(db, rotate);
  }

  const { keys: sealed } = await store.list(db);
  if (sealed.length > 0 && sealed.every((key) => opened(key).length === 0)) {
    throw new StartFault(
      'MILLRACE_IDENTITY_KEY_SECRET is not the secret that the signing keys were sealed with: set the one that was used before',
    );
  }
  await refresh();
  return {
    refresh,
    jwks: () => keys.jwks(held),
    signer(now) {
      const key = keys.signerAt(held, now);
      if (!key) throw new Error('no signing key is active');
      return key;
    },
  };
}
