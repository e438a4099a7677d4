import { createHmac, generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import type { Session } from '#gen/millrace/identity/v1/session.ts';
import { newId } from '#platform/id.ts';
import type { World } from '../../tests/world.ts';
import { refusal, signUp, start } from './fixture.test.ts';
import * as store from './key-system.ts';
import * as keys from './keys.ts';
import * as tokens from './tokens.ts';

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

describe('access tokens', () => {
  let world: World;
  let session: Session;
  let key: keys.SigningKey;
  before(async () => {
    world = await start();
    session = await signUp(world, 'bearer');
    const [sealed] = (await store.list(world.db('identity'))).keys;
    if (!sealed) throw new Error('there is no key');
    key = keys.open(sealed.kid, sealed.sealed, Buffer.from(world.env.MILLRACE_IDENTITY_KEY_SECRET ?? '', 'base64'), sealed.activeTime);
  });
  after(() => world?.stop());

  const now = () => Math.floor(Date.now() / 1000);
  const claims = (more: object = {}) => ({
    ...{
      iss: 'http://millrace.test',
      aud: 'millrace',
      sub: session.userId,
      wsp: session.workspaceId,
      sid: session.id,
      scope: 'tasks.read',
    },
    ...{ iat: now(), exp: now() + 900, ...more },
  });
  const header = (more: object = {}) => ({ alg: 'EdDSA', typ: 'at+jwt', kid: key.kid, ...more });
  const signed = (head: object, body: object, privateKey = key.privateKey) => {
    const text = `${part(head)}.${part(body)}`;
    return `${text}.${signBytes(null, Buffer.from(text), privateKey).toString('base64url')}`;
  };
  const use = (token: string) => world.as(token, Identity).getMe({});

  it('carry who, where and what', async () => {
    expect(decodeProtectedHeader(session.accessToken)).to.deep.equal({ alg: 'EdDSA', typ: 'at+jwt', kid: key.kid });
    const body = JSON.parse(Buffer.from(session.accessToken.split('.')[1] ?? '', 'base64url').toString());
    expect(body).to.have.all.keys('iss', 'aud', 'sub', 'wsp', 'sid', 'scope', 'iat', 'exp');
    expect(body).to.include({
      iss: 'http://millrace.test',
      aud: 'millrace',
      sub: session.userId,
      wsp: session.workspaceId,
      sid: session.id,
    });
    expect(body.scope.split(' ')).to.deep.equal(session.scopes);
    expect(body.exp - body.iat).to.equal(900);
  });

  it('that are forged are refused, while the same ones rightly made are accepted', async () => {
    await use(signed(header(), claims()));
    const grant = { userId: session.userId, workspaceId: session.workspaceId, sessionId: newId('session'), scopes: [], issuedAt: now() };
    await use(await tokens.sign(grant, key, 'http://millrace.test', 60));

    const { privateKey: own, publicKey } = generateKeyPairSync('ed25519');
    const jwk = publicKey.export({ format: 'jwk' });
    const hmac = (head: object, secret: string | Buffer) => {
      const text = `${part(head)}.${part(claims())}`;
      return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
    };
    const [head, , signature] = signed(header(), claims()).split('.');
    const jwks = await (await fetch(`http://${world.adminAddress}/jwks`)).text();
    const { iss, aud, wsp, sid, exp, iat, ...anonymous } = claims();
    const forged: Record<string, string> = {
      'alg none': `${part(header({ alg: 'none' }))}.${part(claims())}.`,
      'alg NONE with a signature': signed(header({ alg: 'NONE' }), claims()),
      'no signature': `${head}.${part(claims())}.`,
      'HS256 with the public key as the secret': hmac(header({ alg: 'HS256' }), Buffer.from(key.x, 'base64url')),
      'HS256 with the text of the public key': hmac(header({ alg: 'HS256' }), key.x),
      'HS256 with the key set': hmac(header({ alg: 'HS256' }), jwks),
      'an unknown algorithm': signed(header({ alg: 'Ed448' }), claims()),
      'another key under the right name': signed(header(), claims(), own),
      'another key under a name of its own': signed(header({ kid: 'mine' }), claims(), own),
      'a name that is a path': signed(header({ kid: '../../../../dev/null' }), claims(), own),
      'a name that is a statement': signed(header({ kid: "x' UNION SELECT 'y" }), claims(), own),
      'a name that is an address': signed(header({ kid: `http://${world.adminAddress}/jwks` }), claims(), own),
      'no name, another key': signed({ alg: 'EdDSA', typ: 'at+jwt' }, claims(), own),
      'its own key inside': signed(header({ kid: undefined, jwk }), claims(), own),
      'an address of keys': signed(header({ kid: 'mine', jku: 'http://127.0.0.1:1/jwks' }), claims(), own),
      'a certificate inside': signed(header({ x5c: ['MIIB'], x5u: 'http://127.0.0.1:1/' }), claims(), own),
      'an unknown critical header': signed(header({ crit: ['b64'], b64: false }), claims()),
      'no type': signed({ alg: 'EdDSA', kid: key.kid }, claims()),
      'the type of other tokens': signed(header({ typ: 'JWT' }), claims()),
      'the type of service tokens': signed(header({ typ: 'service+jwt' }), claims()),
      'the name of a service': signed(
        header({ typ: 'service+jwt', kid: 'identity' }),
        claims({ iss: 'millrace', sub: 'service/identity', aud: 'service/identity' }),
        own,
      ),
      'another audience': signed(header(), claims({ aud: 'service/identity' })),
      'another issuer': signed(header(), claims({ iss: 'http://elsewhere.test' })),
      'no issuer': signed(header(), { aud, wsp, sid, exp, iat, ...anonymous }),
      'no audience': signed(header(), { iss, wsp, sid, exp, iat, ...anonymous }),
      'no workspace': signed(header(), { iss, aud, sid, exp, iat, ...anonymous }),
      'no session': signed(header(), { iss, aud, wsp, exp, iat, ...anonymous }),
      'no end': signed(header(), { iss, aud, wsp, sid, iat, ...anonymous }),
      'no beginning': signed(header(), { iss, aud, wsp, sid, exp, ...anonymous }),
      'an end in words': signed(header(), claims({ exp: 'never' })),
      expired: signed(header(), claims({ iat: now() - 1000, exp: now() - 61 })),
      'not valid yet': signed(header(), claims({ nbf: now() + 3600 })),
      'another body': `${head}.${part(claims({ scope: 'platform.manage' }))}.${signature}`,
      'another header': `${part(header({ extra: 1 }))}.${part(claims())}.${signature}`,
      'two tokens': `${session.accessToken}.${session.accessToken}`,
      'a refresh token': session.refreshToken,
      'an empty name and key': signed(header({ kid: '' }), claims(), own),
      text: 'anything',
    };
    for (const [what, token] of Object.entries(forged)) {
      const fault = await refusal(use(token));
      expect([fault.reason, fault.message.includes(token)], what).to.deep.equal(['TOKEN_INVALID', false]);
    }
  });
});
