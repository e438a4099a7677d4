// first-admin.ts: makes the account that the environment names an administrator of the installation. There is no default password.
import { randomBytes } from 'node:crypto';
import type { Db } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import { newId } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { StartFault } from '#platform/module.ts';
import { emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import type { Hashing } from './hashing.ts';
import { weakness } from './password.ts';
import * as user from './user.ts';
import * as users from './user-system.ts';

interface Options {
  db: Db;
  hashing: Hashing;
  now: () => Date;
  log: Logger;
  email: string;
  password: string | undefined;
}

const MIN_CHARACTERS = 10;

// Somebody may have registered the address before: who does not know the account's password gets nothing.
export async function ensureAdmin(options: Options): Promise<void> {
  const { db, hashing, now, log, email, password } = options;
  const known = await users.findCredential(db, email);
  if (known?.account.isPlatformAdmin) return;
  if (!password) throw new StartFault('MILLRACE_IDENTITY_ADMIN_PASSWORD is not set: it is needed until the account is an administrator');
  if (!known) return make(options, password);
  if (!(await hashing.verify(known.passwordHash, password))) {
    throw new StartFault(
      `MILLRACE_IDENTITY_ADMIN_PASSWORD is not the password of the account ${email}: set its own, or name another address`,
    );
  }
  await db.transaction(async (tx) => {
    await users.save(tx, user.promote(await users.lock(tx, known.account.user.id), now()));
  });
  log.warn({ user: known.account.user.id }, 'an account was made administrator of the installation');
}

async function make(options: Options, password: string): Promise<void> {
  const { db, hashing, now, log, email } = options;
  const isShort = [...password].length < MIN_CHARACTERS;
  const why = isShort ? `is shorter than ${MIN_CHARACTERS} characters` : weakness(password, { email, username: 'admin' });
  if (why) throw new StartFault(`MILLRACE_IDENTITY_ADMIN_PASSWORD ${why}: choose another one`);
  const passwordHash = await hashing.hash(password);
  const local = user.usernameFrom(email);
  for (const username of ['admin', local, `${local.slice(0, 50)}-${randomBytes(4).toString('hex')}`]) {
    const ids = { user: newId('user'), workspace: newId('workspace') };
    const account = user.promote(user.accept({ email, username, displayName: '' }, ids, now()), now());
    const outcome = await db
      .transaction(async (tx) => {
        await users.insert(tx, account, passwordHash);
        await emit(tx, events.registered(account));
      })
      .catch((error) => (error instanceof Fault ? error.reason : Promise.reject(error)));
    if (outcome === 'EMAIL_TAKEN') return ensureAdmin(options); // another process was faster
    if (outcome !== 'USERNAME_TAKEN') return log.warn({ user: ids.user }, 'the first administrator was made');
  }
}
