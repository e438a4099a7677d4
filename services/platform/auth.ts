// Who calls, and whether the method's policy lets them. Every service verifies the token itself; nothing the edge adds is trusted.
import { createHash } from 'node:crypto';
import type { Metadata } from '@grpc/grpc-js';
import { createRemoteJWKSet, decodeProtectedHeader, errors, jwtVerify } from 'jose';
import { LRUCache } from 'lru-cache';
import type { Method } from './contract.ts';
import { type Fault, permissionDenied, unauthenticated, unavailable } from './errors.ts';
import type { Caller } from './handlers.ts';
import type { Revocations } from './revocation.ts';
import { serviceVerifier } from './service-token.ts';

interface Known {
  caller: Caller;
  issued: number; // seconds
  expires: number; // seconds
}
interface Options {
  issuer: string;
  jwksUrl: string;
  serviceJwks: string;
  revocations: Revocations;
}
export type Authenticate = (method: Method, metadata: Metadata) => Promise<Caller>;

export const NOBODY: Caller = { user: '', workspace: '', session: '', scopes: new Set() };
const CLOCK_TOLERANCE_SECONDS = 60;
const JWKS_CACHE_MS = 60_000;

export function openAuth({ issuer, jwksUrl, serviceJwks, revocations }: Options): Authenticate {
  const keys = createRemoteJWKSet(new URL(jwksUrl), { cacheMaxAge: JWKS_CACHE_MS, cooldownDuration: 2000, timeoutDuration: 2000 });
  const verifyService = serviceVerifier(serviceJwks);
  const known = new LRUCache<string, Known>({ max: 10_000 });

  async function user(token: string): Promise<Known> {
    const { payload } = await jwtVerify(token, keys, {
      algorithms: ['EdDSA'],
      typ: 'at+jwt',
      issuer,
      audience: 'millrace',
      requiredClaims: ['sub', 'wsp', 'sid', 'exp', 'iat'],
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
    });
    const scopes = new Set(
      String(payload.scope ?? '')
        .split(' ')
        .filter(Boolean),
    ); // prettier-ignore
    const caller = { user: `${payload.sub}`, workspace: `${payload.wsp}`, session: `${payload.sid}`, scopes };
    return { caller, issued: Number(payload.iat), expires: Number(payload.exp) + CLOCK_TOLERANCE_SECONDS };
  }

  async function service(token: string, area: string): Promise<Known> {
    const { service, actor, expires } = await verifyService(token, area);
    const caller = { user: actor?.user ?? '', workspace: actor?.workspace ?? '', session: '', scopes: new Set(actor?.scopes), service };
    return { caller, issued: 0, expires };
  }

  async function verify(token: string, area: string): Promise<Known> {
    const name = `${area} ${createHash('sha256').update(token).digest('base64')}`;
    const hit = known.get(name);
    if (hit && hit.expires > Date.now() / 1000) return hit;
    try {
      const fresh = isServiceToken(token) ? await service(token, area) : await user(token);
      known.set(name, fresh);
      return fresh;
    } catch (error) {
      throw faultOf(error);
    }
  }

  return async (method, metadata) => {
    const token = bearer(metadata);
    if (method.access === 'PUBLIC') return NOBODY;
    if (!token) throw unauthenticated('TOKEN_MISSING', 'the call needs a token: send the header authorization: Bearer <token>');
    const { caller, issued } = await verify(token, method.area);
    if (!caller.service) revocations.check(caller, issued, method);
    permit(method, caller);
    return caller;
  };
}

function permit(method: Method, caller: Caller): void {
  const named = caller.service !== undefined && method.services.includes(caller.service);
  if (method.access === 'SERVICE' || (caller.service !== undefined && !(named && caller.user))) {
    if (named && method.access === 'SERVICE') return;
    const accepted = method.services.join(', ') || 'none';
    throw permissionDenied('SERVICE_NOT_ACCEPTED', `${method.name} accepts only these services: ${accepted}`, { accepted });
  }
  if (method.access === 'PERMISSION' && !caller.scopes.has(method.scope)) {
    throw permissionDenied('PERMISSION_MISSING', `${method.name} needs the permission ${method.scope}`, { permission: method.scope });
  }
}

function bearer(metadata: Metadata): string | undefined {
  const [value, second] = metadata.get('authorization');
  if (second !== undefined) throw unauthenticated('TOKEN_INVALID', 'the call brings more than one authorization header: send one');
  return /^bearer (.+)$/i.exec(String(value ?? ''))?.[1]?.trim();
}

function isServiceToken(token: string): boolean {
  try {
    return decodeProtectedHeader(token).typ === 'service+jwt';
  } catch {
    return false;
  }
}

function faultOf(error: unknown): Fault {
  if (error instanceof errors.JWTExpired) return unauthenticated('TOKEN_INVALID', 'the token has expired: refresh it or sign in again');
  const outOfReach = error instanceof errors.JWKSTimeout || (error instanceof TypeError && error.message === 'fetch failed');
  if (outOfReach) return unavailable('the keys that tokens are checked with cannot be fetched from identity', 1000, error);
  return unauthenticated('TOKEN_INVALID', 'the token is not valid here: sign in again');
}
