// attempt.ts: how many wrong passwords are borne before more are refused. The lock doubles with every further one.
import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import type { Fault } from '#platform/errors.ts';
import { faults } from './user.ts';

export interface Allowance {
  free: number; // failures that lock nothing
  firstLockSeconds: number;
  longestLockSeconds: number;
  forgetSeconds: number; // without a failure, after which all is forgotten
}
export interface Subject {
  key: Buffer;
  allowance: Allowance;
}

const ACCOUNT: Allowance = { free: 5, firstLockSeconds: 2, longestLockSeconds: 900, forgetSeconds: 24 * 3600 };
const ADDRESS: Allowance = { free: 100, firstLockSeconds: 2, longestLockSeconds: 900, forgetSeconds: 3600 };

const keyOf = (kind: string, what: string): Buffer => createHash('sha256').update(`${kind}\n${what}`).digest();

// A name that nobody has is counted like an account, so that the answers are the same.
export const ofAccount = (userId: string | undefined, name: string): Subject => ({
  key: userId ? keyOf('user', userId) : keyOf('name', name.toLowerCase()),
  allowance: ACCOUNT,
});

// Undefined for this machine itself: behind it may stand a proxy that does not say for whom it calls.
export function ofAddress(peer: string): Subject | undefined {
  const network = networkOf(peer);
  return network === undefined ? undefined : { key: keyOf('address', network), allowance: ADDRESS };
}

// The IPv4 address or the /64 of an IPv6 one, which is what one subscriber has.
export function networkOf(peer: string): string | undefined {
  const bracketed = /^\[([^\]]+)\](?::\d+)?$/.exec(peer)?.[1];
  const address = (bracketed ?? (/^[\d.]+:\d+$/.test(peer) ? peer.slice(0, peer.lastIndexOf(':')) : peer))
    .toLowerCase()
    .replace(/^::ffff:(?=[\d.]+$)/, '');
  if (isIP(address) === 4) return address.startsWith('127.') ? undefined : address;
  if (isIP(address) !== 6 || address === '::1') return undefined;
  const [head = '', tail] = address.split('::');
  const left = head.split(':').filter(Boolean);
  const right = tail?.split(':').filter(Boolean) ?? [];
  const groups = tail === undefined ? left : [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`; // prettier-ignore
}

export const tooMany = (lockedMs: number): Fault =>
  faults.exhausted('TOO_MANY_ATTEMPTS', `too many failed attempts: try again in ${Math.ceil(lockedMs / 1000)} s`, Math.ceil(lockedMs));
