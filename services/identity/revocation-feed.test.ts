import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { expect } from 'chai';
import { IdentityServiceService as Identity } from '#gen/millrace/identity/v1/identity_service.ts';
import { brokerAddress } from '#platform/broker-address.ts';
import { until, type World } from '../../tests/world.ts';
import { signUp, start } from './fixture.test.ts';
import type { Revocation } from './revocation-system.ts';

describe('revocations', () => {
  let world: World;
  let nc: NatsConnection;
  before(async () => {
    world = await start();
    nc = await connect(brokerAddress(world.config.natsUrl));
  });
  after(async () => {
    await nc?.close();
    await world?.stop();
  });

  const bucket = () => `${world.config.natsPrefix}_revocations`;
  const fed = async (subject: string): Promise<Omit<Revocation, 'subject'> | undefined> => {
    const kv = await new Kvm(nc).open(bucket());
    return (await kv.get(subject).catch(() => null))?.json();
  };
  const asked = async (since: number | string): Promise<{ revocations: Revocation[]; now: number }> =>
    (await fetch(`http://${world.adminAddress}/revocations?since=${since}`)).json() as Promise<{ revocations: Revocation[]; now: number }>;
  async function leave(username: string): Promise<string> {
    const session = await signUp(world, username);
    await world.as(session.accessToken, Identity).endSession({});
    return session.id;
  }

  it('are fed to the broker and told to whoever asks', async () => {
    const before = Math.floor(Date.now() / 1000);
    const session = await leave('one');
    const entry = await until('the entry', () => fed(session));
    const { revocations, now } = await asked(before - 5);
    expect(revocations).to.deep.include({ subject: session, ...entry });
    expect(entry.issuedBefore).to.be.within(before - 5, now);
    expect(entry.expire - entry.issuedBefore).to.be.within(3600 + 60, 4000); // longer than any token lives
    expect((await asked(now + 60)).revocations).to.deep.equal([]);
    for (const odd of ['', 'nonsense', '-5', '1e400'])
      expect((await asked(odd)).revocations, odd).to.deep.include({ subject: session, ...entry });
  });

  it('are fed again to a broker that has lost them', async () => {
    const session = await leave('two');
    const entry = await until('the entry', () => fed(session));
    const db = world.db('identity');
    await db('revocations')
      .where({ subject: session })
      .update({ update_time: db.raw('NOW(6) - INTERVAL 10 MINUTE') });
    await (await jetstreamManager(nc)).streams.delete(`KV_${bucket()}`);
    expect(await until('the entry to be there again', () => fed(session))).to.deep.equal(entry);
  });

  it('that another process wrote, or that were written while this one was away, are fed too', async () => {
    const db = world.db('identity');
    const row = { issued_before: db.raw('NOW()'), expire_time: db.raw('NOW(6) + INTERVAL 1 HOUR'), update_time: db.raw('NOW(6)') };
    await db('revocations').insert({ subject: 'ses_elsewhere', ...row });
    await until('the entry of the other process', () => fed('ses_elsewhere'));
    await (await jetstreamManager(nc)).streams.delete(`KV_${bucket()}`);
    await db('revocations').insert({ subject: 'ses_before', ...row, update_time: db.raw('NOW(6) - INTERVAL 1 HOUR') });
    await world.restart();
    await until('the older entry', () => fed('ses_before'));
  });
});
