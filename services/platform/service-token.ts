// How services prove to each other who they are: 60-second tokens signed with each one's own key (JWT, RFC 7519; EdDSA, RFC 8037).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLocalJWKSet, importPKCS8, type JSONWebKeySet, type JWTPayload, jwtVerify, SignJWT } from 'jose';
import { LRUCache } from 'lru-cache';

import { ConfigFault } from './config.ts';

export interface Actor {
  user: string;
  workspace: string;
  scopes: readonly string[];
}
export interface ServiceCaller {
  service: string;
  actor?: Actor;
}

const ISSUER = 'millrace';
const TYPE = 'service+jwt';
const SECONDS = 60;
const REUSE_MS = 30_000;

// Signs the tokens of one service. Tokens are reused for half their life.
export function serviceSigner(folder: string, service: string): (area: string, actor?: Actor) => Promise<string> {
  const key = importPKCS8(readKey('MILLRACE_SERVICE_KEYS', join(folder, `${service}.pem`)), 'EdDSA');
  const signed = new LRUCache<string, Promise<string>>({ max: 1000, ttl: REUSE_MS });
  const sign = async (area: string, actor?: Actor): Promise<string> =>
    new SignJWT(actor ? { act: { sub: actor.user, wsp: actor.workspace, scope: actor.scopes.join(' ') } } : {})
      .setProtectedHeader({ alg: 'EdDSA', kid: service, typ: TYPE })
      .setIssuer(ISSUER)
      .setSubject(`service/${service}`)
      .setAudience(`service/${area}`)
      .setIssuedAt()
      .setExpirationTime(`${SECONDS}s`)
      .sign(await key);
  return (area, actor) => {
    const name = `${area} ${actor ? `${actor.user} ${actor.workspace} ${actor.scopes.join(' ')}` : ''}`;
    const known = signed.get(name);
    if (known) return known;
    const made = sign(area, actor);
    signed.set(name, made);
    return made;
  };
}

// Verifies tokens for the methods of an area. Throws when the token is not one.
export function serviceVerifier(jwksFile: string): (token: string, area: string) => Promise<ServiceCaller & { expires: number }> {
  const keys = createLocalJWKSet(JSON.parse(readKey('MILLRACE_SERVICE_JWKS', jwksFile)) as JSONWebKeySet);
  return async (token, area) => {
    const { payload, protectedHeader } = await jwtVerify(token, keys, {
      algorithms: ['EdDSA'],
      typ: TYPE,
      issuer: ISSUER,
      audience: `service/${area}`,
      requiredClaims: ['sub', 'exp', 'iat'],
      clockTolerance: 5,
    });
    const service = `${protectedHeader.kid}`;
    if (payload.sub !== `service/${service}`) throw new Error('the token is signed by another service than it names');
    const actor = actorOf(payload);
    return { service, expires: Number(payload.exp), ...(actor ? { actor } : {}) };
  };
}

function readKey(setting: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigFault(`${setting} does not lead to a key: ${(error as Error).message}`);
  }
}

function actorOf(payload: JWTPayload): Actor | undefined {
  const act = payload.act as { sub?: string; wsp?: string; scope?: string } | undefined;
  if (!act) return undefined;
  return { user: act.sub ?? '', workspace: act.wsp ?? '', scopes: (act.scope ?? '').split(' ').filter(Boolean) };
}
