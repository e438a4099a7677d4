// session.ts: refresh tokens, and what presenting one does. A token is replaced at each use (RFC 9700, section 4.14.2).
import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto';
import type { Fault } from '#platform/errors.ts';
import { faults } from './user.ts';

export type EndReason = 'SIGNED_OUT' | 'TOKEN_REUSED' | 'USER_DISABLED';

// A presented token as it stands in the database, with the database's own judgement of its times.
export interface Presented {
  hasExpired: boolean; // the session, for good
  endReason: EndReason | undefined;
  isUsed: boolean;
  replay: Buffer | undefined; // the sealed successor, while the grace lasts
}
export type Verdict = 'ROTATE' | 'REPLAY' | 'REUSED' | 'REFUSED' | 'REFUSED_AS_REUSED';

export const GRACE_SECONDS = 10;
export const SECRET_BYTES = 32;

const PREFIX = 'mrr_';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export function judge(token: Presented): Verdict {
  if (token.endReason === 'TOKEN_REUSED') return 'REFUSED_AS_REUSED';
  if (token.endReason || token.hasExpired) return 'REFUSED';
  if (!token.isUsed) return 'ROTATE';
  return token.replay ? 'REPLAY' : 'REUSED';
}

export const tokenOf = (secret: Uint8Array): string => PREFIX + Buffer.from(secret).toString('base64url');

// The secret in a token; undefined when it has not the form of one.
export function secretOf(token: string): Buffer | undefined {
  if (!token.startsWith(PREFIX)) return undefined;
  const secret = Buffer.from(token.slice(PREFIX.length), 'base64url');
  return secret.length === SECRET_BYTES && tokenOf(secret) === token ? secret : undefined;
}

// What is kept of a token. A plain hash suffices: 256 random bits cannot be guessed.
export const digest = (secret: Uint8Array): Buffer => createHash('sha256').update('refresh token\n').update(secret).digest();

// Seals the successor so that only whoever holds the used token can read it: the database alone cannot.
export function seal(successor: Uint8Array, used: Uint8Array, sessionId: string, nonce: Uint8Array): Buffer {
  const cipher = createCipheriv('aes-256-gcm', keyFrom(used, sessionId), nonce).setAAD(Buffer.from(sessionId));
  return Buffer.concat([nonce, cipher.update(successor), cipher.final(), cipher.getAuthTag()]);
}

export function open(sealed: Buffer, used: Uint8Array, sessionId: string): Buffer {
  const nonce = sealed.subarray(0, NONCE_BYTES);
  const decipher = createDecipheriv('aes-256-gcm', keyFrom(used, sessionId), nonce).setAAD(Buffer.from(sessionId));
  decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
}

const keyFrom = (used: Uint8Array, sessionId: string): Buffer =>
  Buffer.from(hkdfSync('sha256', used, Buffer.from(sessionId), 'millrace refresh successor', 32));

export const refused = (): Fault =>
  faults.unauthenticated('REFRESH_TOKEN_INVALID', 'the refresh token is unknown or its session has ended: sign in again');

export const reused = (): Fault =>
  faults.unauthenticated('REFRESH_TOKEN_REUSED', 'the refresh token had been used before, so the session was ended: sign in again');
