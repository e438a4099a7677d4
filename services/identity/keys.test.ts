import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { type Knex, openKnex, schemaOf } from '#platform/db.ts';
import { openLog } from '#platform/log.ts';
import { migrate, rollback } from '#platform/migrate.ts';
import { StartFault } from '#platform/module.ts';
import type { World } from '../../tests/world.ts';
import { start } from './fixture.test.ts';
import { type Keyring, openKeyring, rotationOf } from './keyring.ts';
import * as keys from './keys.ts';
import { module } from './module.ts';
import * as tokens from './tokens.ts';

const ROTATION = rotationOf(30);
const secret = randomBytes(32);

describe('the plan of signing keys', () => {
  const day = 24 * 3600;
  const key = (kid: string, activeTime: number) => ({ kid, activeTime });

  it('publishes each for a cache period and more before it signs', () => {
    expect(ROTATION.publishSeconds).to.be.above(300);
    expect(keys.plan([], 1000, ROTATION)).to.deep.equal({ makeActiveAt: 1000, drop: [] });
    const early = 30 * day - ROTATION.publishSeconds;
    expect(keys.plan([key('a', 0)], early - 1, ROTATION).makeActiveAt).to.equal(undefined);
    expect(keys.plan([key('a', 0)], early, ROTATION).makeActiveAt).to.equal(30 * day);
    expect(keys.plan([key('a', 0)], 90 * day, ROTATION).makeActiveAt).to.equal(90 * day + ROTATION.publishSeconds); // after a long stop
    expect(keys.plan([key('a', 0), key('b', 30 * day)], early + 1, ROTATION).makeActiveAt).to.equal(undefined);
  });

  it('keeps each until its last token has expired', () => {
    const both = [key('b', 100 * day), key('a', 70 * day)];
    expect(ROTATION.retainSeconds).to.be.at.least(3600 + 60);
    expect(keys.plan(both, 100 * day + ROTATION.retainSeconds, ROTATION).drop).to.deep.equal([]);
    expect(keys.plan(both, 100 * day + ROTATION.retainSeconds + 1, ROTATION).drop).to.deep.equal(['a']);
  });

  it('lets the youngest one sign whose time has come', () => {
    const all = [key('c', 300), key('a', 100), key('b', 200)];
    expect([99, 100, 250, 300].map((now) => keys.signerAt(all, now)?.kid)).to.deep.equal([undefined, 'a', 'b', 'c']);
  });
});

describe('the keyring', () => {
  let world: World;
  let db: Knex;
  const area = { name: 'keyring', migrations: module.migrations as URL };
  before(async () => {
    world = await start();
    await migrate(world.config, area);
    db = openKnex(world.config, schemaOf(world.config, area.name), 10);
  });
  after(async () => {
    await db?.destroy();
    await world?.stop();
  });
  beforeEach(() => db('signing_keys').delete());

  const lines: string[] = [];
  const open = (own = secret): Promise<Keyring> =>
    openKeyring({ db, secret: own, rotation: ROTATION, log: openLog('info', { write: (line) => void lines.push(line) }) });
  const kids = (ring: Keyring): string[] => JSON.parse(ring.jwks()).keys.map(({ kid }: { kid: string }) => kid);
  const now = async (): Promise<number> => (await db.raw('SELECT UNIX_TIMESTAMP() AS now'))[0][0].now;
  const later = (seconds: number) => db('signing_keys').update({ active_time: db.raw('active_time - INTERVAL ? SECOND', [seconds]) });
  const grant = { userId: 'usr_1', workspaceId: 'wsp_1', sessionId: 'ses_1', scopes: [], issuedAt: Math.floor(Date.now() / 1000) };
  const verify = (token: string, ring: Keyring) => jwtVerify(token, createLocalJWKSet(JSON.parse(ring.jwks())));

  it('makes one key when many processes start at once', async () => {
    const rings = await Promise.all(Array.from({ length: 4 }, () => open()));
    expect(new Set(rings.flatMap(kids)).size).to.equal(1);
  });

  it('rotates with an overlap in which no token and no verifier is left behind', async () => {
    const rings = [await open(), await open()] as const;
    const [ring, other] = rings;
    const [first] = kids(ring);
    const token = await tokens.sign(grant, ring.signer(await now()), 'http://millrace.test', 900);

    await later(ROTATION.periodSeconds - ROTATION.publishSeconds);
    await Promise.all(rings.map((one) => one.refresh()));
    await Promise.all(rings.map((one) => one.refresh())); // the process that was second has seen the other's key
    expect(kids(ring)).to.have.members(kids(other)).and.have.length(2);
    expect(ring.signer(await now()).kid).to.equal(first); // published, not signing yet
    const second = kids(ring).find((kid) => kid !== first);

    await later(ROTATION.publishSeconds);
    await Promise.all(rings.map((one) => one.refresh()));
    for (const one of rings) expect(one.signer(await now()).kid).to.equal(second);
    await verify(token, other); // signed by the first, which is still published
    await verify(await tokens.sign(grant, ring.signer(await now()), 'http://millrace.test', 900), other);

    await later(ROTATION.retainSeconds + 1);
    await ring.refresh();
    expect(kids(ring)).to.deep.equal([second]);
    expect(await db('signing_keys').count({ n: '*' }).first()).to.deep.equal({ n: 1 });
  });

  it('keeps keys that only the secret opens', async () => {
    const ring = await open();
    const { sealed, kid } = await db('signing_keys').first();
    const key = keys.open(kid, sealed, secret, 0);
    const { d = '' } = key.privateKey.export({ format: 'jwk' });
    expect(sealed.includes(Buffer.from(d, 'base64url'))).to.equal(false);
    const fault = await open(randomBytes(32)).then(
      () => undefined,
      (error) => error,
    ); // prettier-ignore
    expect(fault).to.be.instanceOf(StartFault);
    expect(fault.message).to.include('MILLRACE_IDENTITY_KEY_SECRET');

    // What is written into the table without the secret, or under another name, is never published.
    const mine = keys.generate(0);
    await db('signing_keys').insert({
      kid: mine.kid,
      sealed: keys.seal(mine, randomBytes(32), randomBytes(12)),
      create_time: new Date(),
      active_time: new Date(),
    });
    await db('signing_keys').insert({ kid: 'renamed', sealed, create_time: new Date(), active_time: new Date() });
    await ring.refresh();
    expect(kids(ring)).to.deep.equal([kid]);
    expect(lines.join('')).to.include('cannot be opened').and.not.include(d);
  });
});

describe('the schema of identity', () => {
  it('can be taken back step by step and made again', async () => {
    const world = await start();
    try {
      const area = { name: 'steps', migrations: module.migrations as URL };
      const made = (await migrate(world.config, area)).filter((name) => !name.startsWith('platform-'));
      const db = openKnex(world.config, schemaOf(world.config, area.name), 1);
      const tables = async () => (await db.raw('SHOW TABLES'))[0].length;
      const all = await tables();
      for (const _ of made) await rollback(world.config, area);
      expect(await tables()).to.equal(all - made.length);
      expect(await migrate(world.config, area)).to.deep.equal(made);
      await db.destroy();
    } finally {
      await world.stop();
    }
  });
});
