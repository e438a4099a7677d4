// Signs tokens and serves the keys, like identity.
import { generateKeyPairSync } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SignJWT } from 'jose';

export const ISSUER = 'http://millrace.test';

export interface Issuer {
  url: string;
  fetches: number;
  isDown: boolean;
  token(scopes: readonly string[], claims?: Record<string, unknown>): Promise<string>;
  stop(): void;
}
export async function startIssuer(): Promise<Issuer> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const jwks = JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'test', alg: 'EdDSA', use: 'sig' }] });
  const now = Math.floor(Date.now() / 1000);
  const { server, port } = await listen((_request, respond) => {
    issuer.fetches += 1;
    if (issuer.isDown) respond(503, '');
    else respond(200, jwks);
  });
  const issuer: Issuer = {
    url: `http://127.0.0.1:${port}`,
    fetches: 0,
    isDown: false,
    token: (scopes, claims = {}) =>
      new SignJWT({
        iss: ISSUER,
        aud: 'millrace',
        sub: 'usr_a',
        wsp: 'wsp_a',
        sid: 'ses_a',
        scope: scopes.join(' '),
        iat: now,
        exp: now + 900,
        ...claims,
      })
        .setProtectedHeader({ alg: 'EdDSA', kid: 'test', typ: 'at+jwt' })
        .sign(privateKey),
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return issuer;
}

export async function listen(
  answer: (request: IncomingMessage, respond: (status: number, body: string) => void) => void,
): Promise<{ server: Server; port: number }> {
  const server = createServer((request, response) => answer(request, (status, body) => response.writeHead(status).end(body)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as AddressInfo).port };
}
