// user.ts: what an account is, how it may change and what its roles allow. Nothing here reads a clock or knows where accounts are kept.
import type { ErrorReason } from '#gen/millrace/identity/v1/error_reason.ts';
import type { RegisterRequest } from '#gen/millrace/identity/v1/identity_service.ts';
import { type User, User_State } from '#gen/millrace/identity/v1/user.ts';
import { reasonsOf } from '#platform/errors.ts';

export const faults = reasonsOf<Exclude<keyof typeof ErrorReason, 'UNRECOGNIZED' | 'ERROR_REASON_UNSPECIFIED'>>('identity');

export interface Account {
  user: User;
  isPlatformAdmin: boolean;
  version: number;
}
export type Draft = Pick<RegisterRequest, 'email' | 'username' | 'displayName'>;

const WORKSPACE_NAME_CHARACTERS = 200;

export function accept(draft: Draft, ids: { user: string; workspace: string }, now: Date): Account {
  const username = draft.username.toLowerCase();
  const user = {
    id: ids.user,
    email: draft.email.toLowerCase(),
    username,
    displayName: draft.displayName.trim() || username,
    state: User_State.ACTIVE,
    workspaceId: ids.workspace,
    createTime: now,
    updateTime: now,
  };
  return { user, isPlatformAdmin: false, version: 1 };
}

export const disable = (account: Account, callerId: string, now: Date): Account => {
  if (account.user.id === callerId)
    throw faults.failedPrecondition('OWN_ACCOUNT', 'you cannot disable your own account: ask another administrator');
  return moved(account, User_State.DISABLED, now);
};

export const enable = (account: Account, now: Date): Account => moved(account, User_State.ACTIVE, now);

export const promote = (account: Account, now: Date): Account =>
  account.isPlatformAdmin ? account : { ...touched(account, now), isPlatformAdmin: true };

const moved = (account: Account, state: User_State, now: Date): Account =>
  account.user.state === state ? account : { ...touched(account, now), user: { ...account.user, state, updateTime: now } };

const touched = (account: Account, now: Date): Account => ({
  ...account,
  user: { ...account.user, updateTime: now },
  version: account.version + 1,
});

export const workspaceName = (user: User): string => [...user.displayName].slice(0, WORKSPACE_NAME_CHARACTERS).join('');

// A username for an account that is known only by its address.
export function usernameFrom(email: string): string {
  const local =
    email
      .split('@')[0]
      ?.toLowerCase()
      .replaceAll(/[^a-z0-9._-]/g, '') ?? '';
  return /^[a-z]/.test(local) && local.length >= 3 ? local.slice(0, 64) : `admin-${local}`.slice(0, 64);
}

// What somebody may sign in with: an address or a username. Undefined when it can be neither.
export function signInName(name: string): { column: 'email' | 'username'; value: string } | undefined {
  const value = name.toLowerCase();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the columns hold ASCII only
  if (!/^[\x00-\x7f]+$/.test(value)) return undefined;
  return { column: value.includes('@') ? 'email' : 'username', value };
}

// The words of a token's `scope`, sorted.
export function scopesOf(roles: readonly string[], isPlatformAdmin: boolean, scopesOfRole: (role: string) => string[]): string[] {
  const held = isPlatformAdmin ? [...roles, 'PLATFORM_ADMIN'] : roles;
  return [...new Set(held.flatMap(scopesOfRole))].sort();
}
