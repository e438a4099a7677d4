import { expect } from 'chai';
import { UserEvent } from '#gen/millrace/identity/v1/identity_event.ts';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import { User_State } from '#gen/millrace/identity/v1/user.ts';
import { schemaOf } from '#platform/db.ts';
import { newId, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { listen } from '../../tests/events.ts';
import { until, type World } from '../../tests/world.ts';
import { ensureAdmin } from './first-admin.ts';
import { ADMIN, anyone, draft, PASSWORD, reasonOf, refusal, signInAdmin, signUp, startWithAdmin } from './fixture.test.ts';
import { openHashing } from './hashing.ts';

describe('accounts', () => {
  let world: World;
  before(async () => {
    world = await startWithAdmin();
  });
  after(() => world?.stop());
  const count = async (table: string, where: object = {}) =>
    Number((await world.db('identity')(table).where(where).count({ n: '*' }))[0]?.n);

  it('are made with a workspace of their own and tell so', async () => {
    const { heard, stop } = await listen(world, 'identity', UserEvent.decode);
    const user = await anyone(world).register(draft('Ada.L', { email: 'Ada@Example.COM', displayName: ' Ada Lovelace ' }));
    expect(user).to.include({ email: 'ada@example.com', username: 'ada.l', displayName: 'Ada Lovelace', state: User_State.ACTIVE });
    const session = await anyone(world).createSession({ username: 'ADA.L', password: PASSWORD });
    expect(session.workspaceId).to.equal(user.workspaceId);
    expect(session.scopes).to.deep.equal([...world.contract.scopesOf('ADMIN')].sort());
    const me = await world.as(session.accessToken, Identity).getMe({});
    expect(me).to.deep.equal({ user, workspaceId: user.workspaceId, scopes: session.scopes, sessionId: session.id });
    await until('both events', () => heard.filter(({ event }) => event.user?.id === user.id).length === 2);
    const own = heard.filter(({ event }) => event.user?.id === user.id);
    expect(own.map(({ type }) => type)).to.deep.equal(['user.registered', 'user.logged-in']);
    expect(own[0]?.event.user).to.deep.equal(user);
    await stop();
  });

  it('need an address and a username that nobody has, whatever the case', async () => {
    await anyone(world).register(draft('first'));
    const email = await refusal(anyone(world).register(draft('second', { email: 'FIRST@example.com' })));
    expect(email).to.include({ reason: 'EMAIL_TAKEN', domain: 'identity.millrace' });
    expect(await reasonOf(anyone(world).register(draft('FIRST', { email: 'other@example.com' })))).to.equal('USERNAME_TAKEN');
  });

  it('are made once when one address is registered many times at once', async () => {
    const before = {
      users: await count('users'),
      workspaces: await count('workspaces'),
      members: await count('members'),
      credentials: await count('credentials'),
    };
    const tries = Array.from({ length: 20 }, (_, at) =>
      anyone(world)
        .register(draft(`race${at}`, { email: 'race@example.com' }))
        .then(
          () => 'made',
          (fault) => fault.reason,
        ),
    ); // prettier-ignore
    const outcomes = await Promise.all(tries);
    expect(outcomes.toSorted()).to.deep.equal([...Array(19).fill('EMAIL_TAKEN'), 'made']);
    for (const [table, rows] of Object.entries(before)) expect(await count(table), table).to.equal(rows + 1);
  });

  it('are made once for one idempotency key, and another request with it is refused', async () => {
    const asked = draft('once', { requestId: 'key-1' });
    const made = await Promise.all(Array.from({ length: 8 }, () => anyone(world).register(asked)));
    expect(new Set(made.map(({ id }) => id)).size).to.equal(1);
    expect(await reasonOf(anyone(world).register({ ...asked, displayName: 'Somebody else' }))).to.equal('IDEMPOTENCY_KEY_REUSED');
    await anyone(world).register({ ...asked, password: 'another tram 42 altogether' }); // the password is no part of what is compared
    expect(await reasonOf(anyone(world).createSession({ username: 'once', password: 'another tram 42 altogether' }))).to.equal(
      'CREDENTIALS_INVALID',
    );
  });

  it('refuse passwords that are easy to guess and say why', async () => {
    const fault = await refusal(anyone(world).register(draft('weakling', { password: 'Password123!' })));
    expect(fault.reason).to.equal('PASSWORD_WEAK');
    expect(fault.violations[0]).to.include({ field: 'password', description: 'is one of the most common ones' });
    expect(await count('users', { username: 'weakling' })).to.equal(0);
  });

  it('are listed by the page for administrators of the installation only', async () => {
    const plain = await signUp(world, 'plain');
    const fault = await refusal(world.as(plain.accessToken, Identity).listUsers({ pageSize: 1, pageToken: '' }));
    expect(fault).to.deep.include({ reason: 'PERMISSION_MISSING', metadata: { permission: 'platform.manage' } });
    const admin = await signInAdmin(world);
    const ids: string[] = [];
    for (let pageToken = ''; ; ) {
      const page = await admin.listUsers({ pageSize: 2, pageToken });
      expect(page.users.length).to.be.within(1, 2);
      ids.push(...page.users.map(({ id }) => id));
      pageToken = page.nextPageToken;
      if (pageToken === '') break;
    }
    expect(ids)
      .to.deep.equal(ids.toSorted())
      .and.have.length(await count('users'));
    expect(new Set(ids).size).to.equal(ids.length);
    expect(await reasonOf(admin.listUsers({ pageSize: 2, pageToken: 'bm8' }))).to.equal('PAGE_TOKEN_INVALID');
  });

  it('that are disabled are refused everywhere, and come back when they are enabled', async () => {
    const session = await signUp(world, 'dismissed');
    const person = world.as(session.accessToken, Identity);
    const admin = await signInAdmin(world);
    const disabled = await admin.disableUser({ id: session.userId });
    expect(disabled.state).to.equal(User_State.DISABLED);
    expect(await admin.disableUser({ id: session.userId })).to.deep.equal(disabled); // again changes nothing

    expect(await reasonOf(anyone(world).createSession({ username: 'dismissed', password: 'not the password' }))).to.equal(
      'CREDENTIALS_INVALID',
    );
    expect(await reasonOf(anyone(world).createSession({ username: 'dismissed', password: PASSWORD }))).to.equal('USER_DISABLED');
    expect(await reasonOf(anyone(world).refreshSession({ refreshToken: session.refreshToken }))).to.equal('REFRESH_TOKEN_INVALID');
    const refused = () =>
      person.getMe({}).then(
        () => '',
        (fault) => fault.reason,
      ); // prettier-ignore
    expect(await until('the token to be refused', refused, 4000)).to.equal('TOKEN_REVOKED');

    expect((await admin.enableUser({ id: session.userId })).state).to.equal(User_State.ACTIVE);
    const again = await anyone(world).createSession({ username: 'dismissed', password: PASSWORD });
    await world.as(again.accessToken, Identity).getMe({}); // although it was issued in the second of the revocation
    expect(await refused()).to.equal('TOKEN_REVOKED'); // the old one stays dead
  });

  it('that are being disabled cannot slip through a sign-in that began before', async () => {
    const { id } = await anyone(world).register(draft('slippery'));
    const db = world.db('identity');
    const disabling = await db.transaction();
    await disabling('users')
      .where({ id: toBytes('user', id) })
      .update({ state: 'DISABLED' }); // prettier-ignore
    const signingIn = reasonOf(anyone(world).createSession({ username: 'slippery', password: PASSWORD }));
    const mine = { db: schemaOf(world.config, 'identity') };
    const waiting = db('information_schema.processlist').where(mine).where('info', 'like', '%lock in share mode');
    try {
      await until('the sign-in to wait for the lock', async () => (await waiting.clone().select('id')).length > 0);
    } finally {
      await disabling.commit();
    }
    expect(await signingIn).to.equal('USER_DISABLED');
    expect(await count('sessions', { user: toBytes('user', id) })).to.equal(0);
  });

  it('cannot be disabled by their owner, nor when they do not exist', async () => {
    const admin = await signInAdmin(world);
    const { user } = await admin.getMe({});
    expect(await reasonOf(admin.disableUser({ id: user?.id ?? '' }))).to.equal('OWN_ACCOUNT');
    expect(await reasonOf(admin.disableUser({ id: newId('user') }))).to.equal('RESOURCE_NOT_FOUND');
    expect(await reasonOf(admin.enableUser({ id: 'tsk_1' }))).to.equal('ID_INVALID');
  });
});

describe('the first administrator', () => {
  let world: World;
  before(async () => {
    world = await startWithAdmin();
  });
  after(() => world?.stop());

  it('is made once, as `admin`, and may manage the installation', async () => {
    await world.restart();
    const me = await (await signInAdmin(world)).getMe({});
    expect(me.user).to.include({ username: 'admin', email: ADMIN.email });
    expect(me.scopes).to.include.members(['platform.manage', 'tasks.write']);
  });

  it('is not whoever registered the address before, unless the password is theirs', async () => {
    const email = 'squatted@example.com';
    await anyone(world).register(draft('squatter', { email }));
    const { env } = world;
    env.MILLRACE_IDENTITY_ADMIN_EMAIL = email;
    const outcome = await world.restart().then(
      () => 'started',
      (error) => error.message,
    ); // prettier-ignore
    expect(outcome).to.include(`is not the password of the account ${email}`);

    env.MILLRACE_IDENTITY_ADMIN_PASSWORD = PASSWORD;
    await world.restart();
    const session = await anyone(world).createSession({ username: 'squatter', password: PASSWORD });
    expect(session.scopes).to.include('platform.manage');
  });

  it('is one account when many processes start at once, under a username that is free', async () => {
    const options = { db: world.db('identity'), hashing: await openHashing(), now: () => new Date(), log: openLog('silent') };
    const named = { ...options, email: 'many@example.com', password: ADMIN.password };
    await Promise.all(Array.from({ length: 4 }, () => ensureAdmin(named)));
    const made = await world.db('identity')('users').where({ email: 'many@example.com' }).select('username', 'platform_admin');
    expect(made).to.deep.equal([{ username: 'many', platform_admin: 1 }]);
  });

  it('has no default or weak password', async () => {
    const { env } = world;
    env.MILLRACE_IDENTITY_ADMIN_EMAIL = 'newcomer@example.com';
    delete env.MILLRACE_IDENTITY_ADMIN_PASSWORD;
    const failure = () =>
      world.restart().then(
        () => 'started',
        (error) => error.message,
      ); // prettier-ignore
    expect(await failure()).to.include('MILLRACE_IDENTITY_ADMIN_PASSWORD is not set');
    env.MILLRACE_IDENTITY_ADMIN_PASSWORD = 'changeme123';
    expect(await failure()).to.include('MILLRACE_IDENTITY_ADMIN_PASSWORD is');
    delete env.MILLRACE_IDENTITY_ADMIN_EMAIL;
    await world.restart();
  });
});
