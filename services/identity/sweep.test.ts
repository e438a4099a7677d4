import { expect } from 'chai';
import { toBytes } from '#platform/id.ts';
import type { World } from '../../tests/world.ts';
import * as attempts from './attempt-system.ts';
import { anyone, refusal, signUp, start } from './fixture.test.ts';
import * as revocations from './revocation-system.ts';
import * as sessions from './session-system.ts';

describe('sweeping', () => {
  let world: World;
  before(async () => {
    world = await start();
  });
  after(() => world?.stop());

  it('deletes what no longer counts and nothing else', async () => {
    const db = world.db('identity');
    const [lives, ended, expired] = [await signUp(world, 'lives'), await signUp(world, 'ended'), await signUp(world, 'expired')];
    await anyone(world).refreshSession({ refreshToken: lives.refreshToken });
    await refusal(anyone(world).createSession({ username: 'lives', password: 'wrong' }));
    const old = db.raw('NOW(6) - INTERVAL 8 DAY');
    await db('sessions')
      .where({ id: toBytes('session', ended.id) })
      .update({ end_time: old, end_reason: 'SIGNED_OUT' }); // prettier-ignore
    await db('sessions')
      .where({ id: toBytes('session', expired.id) })
      .update({ expire_time: old }); // prettier-ignore
    await db('refresh_replays').insert({ hash: Buffer.alloc(32), sealed: Buffer.alloc(60), expire_time: old });
    await db('attempts').insert({ subject: Buffer.alloc(32), failures: 1, lock_time: old, forget_time: old });
    const dead = { issued_before: old, expire_time: old, update_time: old };
    await db('revocations').insert({ subject: 'ses_dead', ...dead });
    await db('revocations').insert({ subject: 'ses_live', ...dead, expire_time: db.raw('NOW(6) + INTERVAL 1 HOUR') });

    await Promise.all([sessions.sweep(db), attempts.sweep(db), revocations.sweep(db)]);

    expect(await db('sessions').select('id')).to.deep.equal([{ id: toBytes('session', lives.id) }]);
    expect(await db('refresh_tokens').distinct('session')).to.deep.equal([{ session: toBytes('session', lives.id) }]);
    expect(await db('refresh_tokens').select('hash')).to.have.length(2);
    expect(await db('refresh_replays').select('hash')).to.have.length(1);
    expect(await db('attempts').select('failures')).to.have.length(1);
    expect(await db('revocations').select('subject')).to.deep.equal([{ subject: 'ses_live' }]);
  });
});
