import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import type { World } from '../../tests/world.ts';
import { anyone, callRaw, draft, PASSWORD, refusal, start } from './fixture.test.ts';

const FORM = 'application/x-www-form-urlencoded';

describe('the token endpoint', () => {
  let world: World;
  before(async () => {
    world = await start();
    await anyone(world).register(draft('orla'));
  });
  after(() => world?.stop());

  async function post(form: Record<string, string> | string, contentType = FORM) {
    const data = Buffer.from(typeof form === 'string' ? form : new URLSearchParams(form).toString());
    const { response, headers } = await callRaw(world, Identity.issueToken, { form: { contentType, data, extensions: [] } });
    expect(response.contentType).to.equal('application/json');
    expect(headers).to.include({ 'cache-control': 'no-store', pragma: 'no-cache' });
    return { code: headers['x-http-code'] ?? '200', body: JSON.parse(response.data.toString()) };
  }

  it('answers a password and then a refresh token as RFC 6749 says', async () => {
    const { code, body } = await post(
      { grant_type: 'password', username: 'orla@example.com', password: PASSWORD },
      `${FORM}; charset=UTF-8`,
    );
    expect(code).to.equal('200');
    expect(body).to.have.all.keys('access_token', 'token_type', 'expires_in', 'refresh_token', 'scope');
    expect(body).to.include({ token_type: 'bearer', expires_in: 900, scope: [...world.contract.scopesOf('ADMIN')].sort().join(' ') });
    const me = await world.as(body.access_token, Identity).getMe({});
    expect(me.user?.username).to.equal('orla');
    const next = await post({ grant_type: 'refresh_token', refresh_token: body.refresh_token, client_id: 'cli', client_secret: '' });
    expect(next.code).to.equal('200');
    expect(next.body.refresh_token).not.to.equal(body.refresh_token);
  });

  it('answers errors as RFC 6749 says', async () => {
    const right = { grant_type: 'password', username: 'orla', password: PASSWORD };
    const cases: [string, string, Record<string, string> | string, string?][] = [
      ['400', 'invalid_grant', { ...right, password: 'wrong' }],
      ['400', 'invalid_grant', { ...right, username: 'nobody' }],
      ['400', 'invalid_grant', { grant_type: 'refresh_token', refresh_token: 'mrr_nothing' }],
      ['400', 'invalid_request', { ...right, password: '' }],
      ['400', 'invalid_request', { ...right, password: 'x'.repeat(257) }],
      ['400', 'invalid_request', { grant_type: 'password', username: 'orla' }],
      ['400', 'invalid_request', { username: 'orla', password: PASSWORD }],
      ['400', 'invalid_request', `${new URLSearchParams(right)}&username=orla`],
      ['400', 'invalid_request', JSON.stringify(right), 'application/json'],
      ['400', 'invalid_request', { ...right, more: 'x'.repeat(8192) }],
      ['400', 'invalid_request', ''],
      ['400', 'unsupported_grant_type', { ...right, grant_type: 'client_credentials' }],
      ['401', 'invalid_client', { ...right, client_id: 'app', client_secret: 'hush' }],
    ];
    for (const [expected, error, form, contentType] of cases) {
      const { code, body } = await post(form, contentType);
      expect([code, body.error], JSON.stringify(form)).to.deep.equal([expected, error]);
      expect(body).to.have.all.keys('error', 'error_description');
      expect(JSON.stringify(body)).not.to.include(PASSWORD);
    }
  });

  it('answers too many attempts as every method does', async () => {
    await anyone(world).register(draft('odd'));
    const wrong = { grant_type: 'password', username: 'odd', password: 'wrong' };
    for (let at = 0; at < 5; at++) expect((await post(wrong)).body.error).to.equal('invalid_grant');
    const fault = await refusal(post(wrong));
    expect(fault).to.include({ code: status.RESOURCE_EXHAUSTED, reason: 'TOO_MANY_ATTEMPTS' });
    expect(fault.retryAfterMs).to.be.above(0);
  });

  it('is found by the discovery document, and its keys are public', async () => {
    const { response, headers } = await callRaw(world, Identity.getDiscovery, {});
    const found = JSON.parse(response.data.toString());
    const issuer = 'http://millrace.test';
    expect(found).to.include({ issuer, token_endpoint: `${issuer}/oauth2/token`, jwks_uri: `${issuer}/.well-known/jwks.json` });
    expect(found.scopes_supported).to.include.members(['tasks.read', 'platform.manage']);
    expect(headers['cache-control']).to.equal('public, max-age=300');
    const keys = await callRaw(world, Identity.getJwks, {});
    expect(await (await fetch(`http://${world.adminAddress}/jwks`)).text()).to.equal(keys.response.data.toString());
    const [key, ...others] = JSON.parse(keys.response.data.toString()).keys;
    expect(others).to.deep.equal([]);
    expect(key).to.have.all.keys('kty', 'crv', 'alg', 'use', 'kid', 'x');
    expect(key).to.include({ kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig' });
  });
});
