// accounts.ts: makes accounts and lets administrators forbid and allow them to sign in.
import { randomBytes } from 'node:crypto';
import type { RegisterRequest } from '#gen/millrace/identity/v1/identity_service.ts';
import type { User } from '#gen/millrace/identity/v1/user.ts';
import type { Db } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import type { Call } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import type { Logger } from '#platform/log.ts';
import { StartFault } from '#platform/module.ts';
import { type Event, emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import type { Hashing } from './hashing.ts';
import { weakness } from './password.ts';
import type { Feed } from './revocation-feed.ts';
import { revoke } from './revocation-system.ts';
import * as sessions from './session-system.ts';
import * as user from './user.ts';
import * as users from './user-system.ts';

export interface Accounts {
  register(draft: RegisterRequest, call: Call): Promise<User>;
  list(limit: number, after: string | undefined): Promise<User[]>;
  disable(id: string, callerId: string): Promise<User>;
  enable(id: string): Promise<User>;
  ensureAdmin(email: string, password: string | undefined): Promise<void>;
}
interface Options {
  db: Db;
  hashing: Hashing;
  feed: Feed;
  now: () => Date;
  log: Logger;
}

export function openAccounts({ db, hashing, feed, now, log }: Options): Accounts {
  const draftOf = (draft: user.Draft) => user.accept(draft, { user: newId('user'), workspace: newId('workspace') }, now());

  const change = (id: string, how: (account: user.Account) => user.Account, told: (account: user.Account) => Event, isEnd: boolean) =>
    db.transaction(async (tx) => {
      const before = await users.lock(tx, id);
      const after = how(before);
      if (after === before) return before.user;
      await users.save(tx, after);
      if (isEnd) {
        await sessions.endAll(tx, id, 'USER_DISABLED');
        await revoke(tx, id);
      }
      await emit(tx, told(after));
      return after.user;
    });

  // The first administrator. Somebody may have registered the address before: who does not know the password gets nothing.
  async function ensureAdmin(email: string, password: string | undefined): Promise<void> {
    const known = await users.findCredential(db, email);
    if (known?.account.isPlatformAdmin) return;
    if (!password) throw new StartFault('MILLRACE_IDENTITY_ADMIN_PASSWORD is not set: it is needed until the account is an administrator');
    if (!known) return makeAdmin(email, password);
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

  async function makeAdmin(email: string, password: string): Promise<void> {
    const why = weakness(password, { email, username: 'admin' });
    if (why || password.length < 10)
      throw new StartFault(`MILLRACE_IDENTITY_ADMIN_PASSWORD ${why ?? 'is shorter than 10 characters'}: choose another one`);
    const passwordHash = await hashing.hash(password);
    const local = user.usernameFrom(email);
    for (const username of ['admin', local, `${local.slice(0, 50)}-${randomBytes(4).toString('hex')}`]) {
      const account = user.promote(draftOf({ email, username, displayName: '' }), now());
      const outcome = await db
        .transaction(async (tx) => {
          await users.insert(tx, account, passwordHash);
          await emit(tx, events.registered(account));
        })
        .catch((error) => (error instanceof Fault ? error.reason : Promise.reject(error)));
      if (outcome === 'EMAIL_TAKEN') return ensureAdmin(email, password); // another process was faster
      if (outcome !== 'USERNAME_TAKEN') return log.warn({ user: account.user.id }, 'the first administrator was made');
    }
  }

  return {
    async register(draft, call) {
      const why = weakness(draft.password, draft);
      if (why)
        throw user.faults.invalid('PASSWORD_WEAK', `the password ${why}: choose another one`, [{ field: 'password', description: why }]);
      const passwordHash = await hashing.hash(draft.password, call.signal);
      const account = draftOf(draft);
      return db.transaction(async (tx) => {
        const earlier = await claimKey(tx, call, account.user.id);
        if (earlier) return (await users.get(tx, earlier)).user;
        await users.insert(tx, account, passwordHash);
        await emit(tx, events.registered(account));
        return account.user;
      });
    },
    list: async (limit, after) => (await users.list(db, limit, after)).map((account) => account.user),
    async disable(id, callerId) {
      const disabled = await change(id, (account) => user.disable(account, callerId, now()), events.disabled, true);
      feed.poke();
      log.warn({ user: id, by: callerId }, 'an account was disabled');
      return disabled;
    },
    enable: (id) => change(id, (account) => user.enable(account, now()), events.enabled, false),
    ensureAdmin,
  };
}
