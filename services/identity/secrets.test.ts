import { expect } from 'chai';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import type { World } from '../../tests/world.ts';
import { ADMIN, anyone, callRaw, draft, refusal, signInAdmin, startWithAdmin } from './fixture.test.ts';
import * as store from './key-system.ts';
import * as keys from './keys.ts';

const PASSWORD = 'canary kiosk 93 beneath';
const WRONG = 'wrong canary 71 above';

// Text of a value as any careless code might have kept it.
const shapes = (secret: string | Buffer): string[] => {
  const bytes = Buffer.from(secret as string);
  const text = typeof secret === 'string' ? [secret, encodeURIComponent(secret), secret.replaceAll(' ', '+')] : [];
  return [...text, bytes.toString('hex'), bytes.toString('base64'), bytes.toString('base64url'), bytes.toString('latin1')];
};

describe('secrets', () => {
  let world: World;
  const secrets = new Map<string, string | Buffer>();
  before(async () => {
    world = await startWithAdmin();
    const remember = (name: string, answer: { accessToken: string; refreshToken: string }) => {
      secrets.set(`${name} access token`, answer.accessToken);
      secrets.set(`${name} signature`, answer.accessToken.split('.')[2] ?? '');
      secrets.set(`${name} refresh token`, answer.refreshToken);
      secrets.set(`${name} refresh secret`, Buffer.from(answer.refreshToken.slice(4), 'base64url'));
      return answer;
    };
    const client = anyone(world);
    await client.register(draft('kestrel', { password: PASSWORD, requestId: 'canary-key' }));
    await refusal(client.register(draft('kestrel', { password: PASSWORD })));
    await refusal(client.register(draft('kestrel2', { password: 'Password123!' })));
    await refusal(client.createSession({ username: 'kestrel', password: WRONG }));
    await refusal(client.createSession({ username: WRONG, password: PASSWORD })); // typed into the wrong field
    const first = remember('first', await client.createSession({ username: 'kestrel', password: PASSWORD }));
    const second = remember('second', await client.refreshSession({ refreshToken: first.refreshToken }));
    const data = Buffer.from(new URLSearchParams({ grant_type: 'refresh_token', refresh_token: second.refreshToken }).toString());
    const form = { contentType: 'application/x-www-form-urlencoded', data, extensions: [] };
    const { response } = await callRaw(world, Identity.issueToken, { form });
    const { access_token: accessToken, refresh_token: refreshToken } = JSON.parse(response.data.toString());
    const third = remember('third', { accessToken, refreshToken });
    await refusal(client.refreshSession({ refreshToken: `${third.refreshToken}x` }));
    await (await signInAdmin(world)).listUsers({ pageSize: 0, pageToken: '' });
    await world
      .db('identity')('refresh_replays')
      .update({ expire_time: world.db('identity').raw('NOW(6)') });
    await refusal(client.refreshSession({ refreshToken: first.refreshToken }));

    const keySecret = Buffer.from(world.env.MILLRACE_IDENTITY_KEY_SECRET ?? '', 'base64');
    const [sealed] = (await store.list(world.db('identity'))).keys;
    if (!sealed) throw new Error('there is no key');
    const { privateKey } = keys.open(sealed.kid, sealed.sealed, keySecret, 0);
    secrets.set('password', PASSWORD).set('wrong password', WRONG).set('admin password', ADMIN.password).set('key secret', keySecret);
    secrets.set('signing key', Buffer.from(privateKey.export({ format: 'jwk' }).d ?? '', 'base64url'));
  });
  after(() => world?.stop());

  const absentFrom = (text: string, where: string) => {
    for (const [name, secret] of secrets)
      for (const shape of shapes(secret)) expect(text.includes(shape), `${name} in ${where}`).to.equal(false);
  };

  it('are in no log', () => {
    const log = world.logged();
    expect(log).to.include('signed in').and.include('a used refresh token was presented again');
    absentFrom(log, 'the log');
  });

  it('are not in the database', async () => {
    const db = world.db('identity');
    const tables: string[] = (await db.raw('SHOW TABLES'))[0].map((row: object) => Object.values(row)[0]);
    expect(tables).to.include.members([
      'users',
      'credentials',
      'sessions',
      'refresh_tokens',
      'refresh_replays',
      'idempotency',
      'signing_keys',
      'outbox',
    ]);
    let dump = '';
    for (const table of tables) {
      for (const row of (await db(table).select()) as object[]) {
        for (const value of Object.values(row))
          dump += Buffer.isBuffer(value) ? ` ${value.toString('hex')} ${value.toString('latin1')}` : ` ${value}`;
      }
    }
    expect(dump).to.include('kestrel@example.com').and.include('$argon2id$');
    absentFrom(dump, 'the database');
  });

  it('are in no answer to others', async () => {
    const answers = [
      await (await signInAdmin(world)).listUsers({ pageSize: 0, pageToken: '' }),
      await (await fetch(`http://${world.adminAddress}/jwks`)).text(),
      await (await fetch(`http://${world.adminAddress}/revocations`)).text(),
      await (await fetch(`http://${world.adminAddress}/metrics`)).text(),
    ];
    absentFrom(JSON.stringify(answers), 'an answer');
  });
});
