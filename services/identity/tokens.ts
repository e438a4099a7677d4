// tokens.ts: access tokens (RFC 9068) and what is said about how to get them (RFC 6749, RFC 8414).
import { SignJWT } from 'jose';
import type { Session } from '#gen/millrace/identity/v1/session.ts';
import type { SigningKey } from './keys.ts';

export interface Grant {
  userId: string;
  workspaceId: string;
  sessionId: string;
  scopes: string[];
  issuedAt: number; // seconds, by the database's clock
}

export const AUDIENCE = 'millrace';

export const sign = (grant: Grant, key: SigningKey, issuer: string, lifeSeconds: number): Promise<string> =>
  new SignJWT({ wsp: grant.workspaceId, sid: grant.sessionId, scope: grant.scopes.join(' ') })
    .setProtectedHeader({ alg: 'EdDSA', kid: key.kid, typ: 'at+jwt' })
    .setIssuer(issuer)
    .setAudience(AUDIENCE)
    .setSubject(grant.userId)
    .setIssuedAt(grant.issuedAt)
    .setExpirationTime(grant.issuedAt + lifeSeconds)
    .sign(key.privateKey);

// A session as a token response (RFC 6749, section 5.1).
export const asTokenResponse = (session: Session) => ({
  access_token: session.accessToken,
  token_type: 'bearer',
  expires_in: session.expiresIn,
  refresh_token: session.refreshToken,
  scope: session.scopes.join(' '),
});

// Authorization server metadata (RFC 8414), which OpenID Connect Discovery shares.
export const discovery = (issuer: string, scopes: readonly string[]) => ({
  issuer,
  token_endpoint: `${issuer}/oauth2/token`,
  jwks_uri: `${issuer}/.well-known/jwks.json`,
  grant_types_supported: ['password', 'refresh_token'],
  response_types_supported: [],
  token_endpoint_auth_methods_supported: ['none'],
  scopes_supported: scopes,
  subject_types_supported: ['public'],
  id_token_signing_alg_values_supported: ['EdDSA'],
});
