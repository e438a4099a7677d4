// accounts.ts: makes accounts and lets administrators forbid and allow them to sign in.
import type { RegisterRequest } from '#gen/millrace/identity/v1/identity_service.ts';
import type { User } from '#gen/millrace/identity/v1/user.ts';
import type { Db } from '#platform/db.ts';
import type { Call } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import type { Logger } from '#platform/log.ts';
import { type Event, emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import type { Hashing } from './hashing.ts';
import { weakness } from './password.ts';
import { revoke } from './revocation-system.ts';
import * as sessions from './session-system.ts';
import * as user from './user.ts';
import * as users from './user-system.ts';

export interface Accounts {
  register(draft: RegisterRequest, call: Call): Promise<User>;
  list(limit: number, after: string | undefined): Promise<User[]>;
  disable(id: string, callerId: string): Promise<User>;
  enable(id: string): Promise<User>;
}
interface Options {
  db: Db;
  hashing: Hashing;
  onRevoked: () => void; // something was revoked and committed
  now: () => Date;
  log: Logger;
}

export function openAccounts({ db, hashing, onRevoked, now, log }: Options): Accounts {
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

  return {
    async register(draft, call) {
      const why = weakness(draft.password, draft);
      if (why)
        throw user.faults.invalid('PASSWORD_WEAK', `the password ${why}: choose another one`, [{ field: 'password', description: why }]);
      const passwordHash = await hashing.hash(draft.password, call.signal);
      const account = user.accept(draft, { user: newId('user'), workspace: newId('workspace') }, now());
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
      onRevoked();
      log.warn({ user: id, by: callerId }, 'an account was disabled');
      return disabled;
    },
    enable: (id) => change(id, (account) => user.enable(account, now()), events.enabled, false),
  };
}
