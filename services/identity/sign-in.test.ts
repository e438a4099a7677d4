import { createHash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { register as metrics } from 'prom-client';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import { readConfig } from '#platform/config.ts';
import { toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { runModules } from '#platform/module.ts';
import { until, type World } from '../../tests/world.ts';
import * as attempt from './attempt.ts';
import * as attempts from './attempt-system.ts';
import { anyone, callRaw, draft, PASSWORD, reasonOf, refusal, signUp, start } from './fixture.test.ts';
import { openHashing } from './hashing.ts';
import { openKeyring, rotationOf } from './keyring.ts';
import { module } from './module.ts';
import { openSignIn, type SignIn } from './sign-in.ts';

let world: World;

const hashed = async (purpose: string): Promise<number> => {
  const jobs = await metrics.getSingleMetric('millrace_identity_password_jobs_total')?.get();
  return jobs?.values.find((one) => one.labels.purpose === purpose)?.value ?? 0;
};
const tokenRefusal = (accessToken: string) => () =>
  world
    .as(accessToken, Identity)
    .getMe({})
    .then(
      () => '',
      (fault) => fault.reason,
    ); // prettier-ignore

describe('signing in', () => {
  before(async () => {
    world = await start();
  });
  after(() => world?.stop());
  const wrong = (username: string, password = 'not the password') => anyone(world).createSession({ username, password });

  it('answers an unknown name and a wrong password alike, after the same work', async () => {
    await anyone(world).register(draft('known'));
    const before = { decoy: await hashed('decoy'), verify: await hashed('verify') };
    const [unknown, known, strange] = [await refusal(wrong('nobody')), await refusal(wrong('known')), await refusal(wrong('Ünknown'))];
    expect(unknown).to.include({ reason: 'CREDENTIALS_INVALID', code: status.UNAUTHENTICATED });
    for (const other of [known, strange]) {
      expect([other.code, other.reason, other.message, other.metadata]).to.deep.equal([
        unknown.code,
        unknown.reason,
        unknown.message,
        unknown.metadata,
      ]);
    }
    expect(await hashed('decoy')).to.equal(before.decoy + 2);
    expect(await hashed('verify')).to.equal(before.verify + 1);
  });

  it('is locked after five failures for the account, by whichever name, and for nobody else', async () => {
    await anyone(world).register(draft('locked'));
    for (let at = 0; at < 5; at++) expect(await reasonOf(wrong(at % 2 ? 'locked' : 'LOCKED@example.com'))).to.equal('CREDENTIALS_INVALID');
    const fault = await refusal(wrong('locked', PASSWORD));
    expect(fault).to.include({ reason: 'TOO_MANY_ATTEMPTS', code: status.RESOURCE_EXHAUSTED });
    expect(fault.retryAfterMs).to.be.within(1, 2000);
    await signUp(world, 'neighbour');
    for (let at = 0; at < 5; at++) await refusal(wrong('nobody-at-all'));
    expect(await reasonOf(wrong('nobody-at-all'))).to.equal('TOO_MANY_ATTEMPTS'); // an unknown name is locked alike
  });

  it('opens again when the lock is over, and the right password forgets the failures', async () => {
    await anyone(world).register(draft('patient'));
    for (let at = 0; at < 5; at++) await refusal(wrong('patient'));
    await world
      .db('identity')('attempts')
      .update({ lock_time: world.db('identity').raw('NOW(6)') });
    await wrong('patient', PASSWORD);
    for (let at = 0; at < 4; at++) expect(await reasonOf(wrong('patient'))).to.equal('CREDENTIALS_INVALID');
    await wrong('patient', PASSWORD);
  });

  it('doubles the lock up to a quarter of an hour, and forgets after a day', async () => {
    const db = world.db('identity');
    const subject = attempt.ofAccount('usr_doubling', '');
    const locks: number[] = [];
    for (let at = 1; at <= 20; at++) {
      await attempts.fail(db, subject);
      locks.push(Math.ceil((await attempts.lockedMs(db, [subject])) / 1000));
    }
    expect(locks).to.deep.equal([0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 512, ...Array(7).fill(900)]);
    await db('attempts')
      .where({ subject: subject.key })
      .update({ forget_time: db.raw('NOW(6) - INTERVAL 1 SECOND'), lock_time: db.raw('NOW(6)') });
    await attempts.fail(db, subject);
    expect(await db('attempts').where({ subject: subject.key }).first('failures')).to.deep.equal({ failures: 1 });
  });

  it('counts every guess of many at once, and a right one among them comes too late', async () => {
    const { id } = await anyone(world).register(draft('stormed'));
    const guesses = Array.from({ length: 14 }, () => reasonOf(wrong('stormed')));
    const right = reasonOf(wrong('stormed', PASSWORD));
    expect(await right).to.equal('TOO_MANY_ATTEMPTS');
    const refused = await Promise.all(guesses);
    const counted = refused.filter((reason) => reason === 'CREDENTIALS_INVALID').length;
    const row = await world
      .db('identity')('attempts')
      .where({ subject: attempt.ofAccount(id, '').key })
      .first('failures');
    expect(row.failures).to.equal(counted).and.to.be.at.least(5);
    expect(
      await world
        .db('identity')('sessions')
        .where({ user: toBytes('user', id) }),
    ).to.deep.equal([]);
  });

  it('is locked for an address that fails with many names, as the edge names it', async () => {
    const guilty = attempt.ofAddress('203.0.113.7');
    if (!guilty) throw new Error('the address has no subject');
    for (let at = 0; at < 99; at++) await attempts.fail(world.db('identity'), guilty);
    await anyone(world).register(draft('traveller'));
    const from = (address: string, password: string) =>
      callRaw(world, Identity.createSession, { username: 'traveller', password }, { 'x-forwarded-for': `10.1.1.1, ${address}` });
    expect(await reasonOf(from('203.0.113.7', 'the hundredth guess'))).to.equal('CREDENTIALS_INVALID');
    expect(await reasonOf(from('203.0.113.7', PASSWORD))).to.equal('TOO_MANY_ATTEMPTS');
    await from('203.0.113.8', PASSWORD);
  });
});

describe('refreshing', () => {
  before(async () => {
    world = await start();
  });
  after(() => world?.stop());
  const refresh = (refreshToken: string, address?: string) => anyone(world, address).refreshSession({ refreshToken });
  const graceIsOver = () =>
    world
      .db('identity')('refresh_replays')
      .update({ expire_time: world.db('identity').raw('NOW(6) - INTERVAL 1 SECOND') });
  async function place(): Promise<SignIn> {
    const db = world.db('identity');
    const secret = Buffer.from(world.env.MILLRACE_IDENTITY_KEY_SECRET ?? '', 'base64');
    const log = openLog('silent');
    const keyring = await openKeyring({ db, secret, rotation: rotationOf(30), log });
    const rest = { issuer: 'http://millrace.test', accessSeconds: 900, sessionDays: 30, scopesOfRole: world.contract.scopesOf };
    return openSignIn({ db, hashing: await openHashing(), keyring, onRevoked: () => undefined, log, ...rest });
  }
  const tokensOf = async (sessionId: string) =>
    (
      await world
        .db('identity')('refresh_tokens')
        .where({ session: toBytes('session', sessionId) })
        .select('hash')
    ).map(({ hash }) => hash.toString('hex')); // prettier-ignore

  it('replaces the token, keeps the session and its end, and bears a repetition', async () => {
    const first = await signUp(world, 'rita');
    const second = await refresh(first.refreshToken);
    expect(second.refreshToken)
      .to.match(/^mrr_[\w-]{43}$/)
      .and.not.to.equal(first.refreshToken);
    expect(second).to.deep.include({ id: first.id, refreshExpireTime: first.refreshExpireTime, scopes: first.scopes, expiresIn: 900 });
    expect((await refresh(first.refreshToken)).refreshToken).to.equal(second.refreshToken); // the answer was lost
    const third = await refresh(second.refreshToken);
    expect(third.refreshToken).not.to.equal(second.refreshToken);
    await world.as(third.accessToken, Identity).getMe({});
    expect(await tokensOf(first.id)).to.have.length(3);
  });

  it('of a used token after the grace ends the session', async () => {
    const first = await signUp(world, 'robbed');
    const second = await refresh(first.refreshToken);
    await graceIsOver();
    expect(await reasonOf(refresh(first.refreshToken))).to.equal('REFRESH_TOKEN_REUSED');
    expect(await reasonOf(refresh(second.refreshToken))).to.equal('REFRESH_TOKEN_REUSED'); // the thief's or the owner's: nobody knows
    expect(await until('the access token to be refused', tokenRefusal(second.accessToken), 4000)).to.equal('TOKEN_REVOKED');
    await anyone(world).createSession({ username: 'robbed', password: PASSWORD });
  });

  it('a thousand times at once gives one successor', async () => {
    const { id, refreshToken } = await signUp(world, 'thousand');
    const client = anyone(world);
    const answers = await Promise.all(Array.from({ length: 1000 }, () => client.refreshSession({ refreshToken })));
    expect(new Set(answers.map((answer) => answer.refreshToken)).size).to.equal(1);
    expect(await tokensOf(id)).to.have.length(2);
  });

  it('in forty places at once, each with its own eyes, gives one successor', async () => {
    const { id, refreshToken } = await signUp(world, 'forty');
    const places = await Promise.all(Array.from({ length: 40 }, place));
    const answers = await Promise.all(places.map((signIn) => signIn.refresh(refreshToken)));
    expect(new Set(answers.map((answer) => answer.refreshToken)).size).to.equal(1);
    expect(await tokensOf(id)).to.have.length(2);
  });

  it('in two processes at once gives one successor', async () => {
    const other = await runModules({ modules: [module], config: readConfig(world.env), log: openLog('silent'), env: world.env });
    try {
      const { id, refreshToken, accessToken } = await signUp(world, 'pair');
      const clients = [anyone(world), anyone(world, other.grpcAddress)];
      const answers = await Promise.all(
        clients.flatMap((client) => Array.from({ length: 50 }, () => client.refreshSession({ refreshToken }))),
      );
      expect(new Set(answers.map((answer) => answer.refreshToken)).size).to.equal(1);
      expect(await tokensOf(id)).to.have.length(2);

      // A session that ends in one process ends in the other, told by the broker before the next look at the table.
      const there = world.as(accessToken, Identity, other.grpcAddress);
      await there.getMe({});
      await world.as(accessToken, Identity).endSession({});
      const refused = () =>
        there.getMe({}).then(
          () => '',
          (fault) => fault.reason,
        ); // prettier-ignore
      expect(await until('the other process to refuse the token', refused, 4000)).to.equal('TOKEN_REVOKED');
    } finally {
      await other.stop();
    }
  });

  it('ends with the session: signed out, or 30 days old however often it was refreshed', async () => {
    const one = await signUp(world, 'leaver');
    await world.as(one.accessToken, Identity).endSession({});
    expect(await reasonOf(refresh(one.refreshToken))).to.equal('REFRESH_TOKEN_INVALID');
    expect(await until('the access token to be refused', tokenRefusal(one.accessToken), 4000)).to.equal('TOKEN_REVOKED');

    const two = await signUp(world, 'elder');
    const days = ((two.refreshExpireTime?.getTime() ?? 0) - Date.now()) / 86_400_000;
    expect(days).to.be.closeTo(30, 0.01);
    await world
      .db('identity')('sessions')
      .where({ id: toBytes('session', two.id) })
      .update({ expire_time: world.db('identity').raw('NOW(6)') }); // prettier-ignore
    expect(await reasonOf(refresh(two.refreshToken))).to.equal('REFRESH_TOKEN_INVALID');
  });

  it('refuses what is no refresh token', async () => {
    const { refreshToken, accessToken } = await signUp(world, 'forger');
    const hash = createHash('sha256')
      .update('refresh token\n')
      .update(Buffer.from(refreshToken.slice(4), 'base64url'))
      .digest();
    const others = [
      accessToken,
      'mrr_',
      `mrr_${hash.toString('base64url')}`,
      refreshToken.slice(0, -1),
      `${refreshToken}A`,
      refreshToken.toUpperCase(),
    ];
    for (const other of others) expect(await reasonOf(refresh(other.slice(0, 256))), other).to.equal('REFRESH_TOKEN_INVALID');
    await refresh(refreshToken);
  });
});
