import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import type { PoolConnection } from '#platform/db.ts';
import { newBytes } from '#platform/id.ts';
import { pause } from '#platform/pause.ts';
import type { Claimed, Ready } from '../engine/claims.ts';
import { openClock } from '../engine/clock.ts';
import { accept, publish, type Schema, startSchema } from '../engine/fixture.test.ts';
import { decodeFresh, encodeFresh, type Fresh } from '../engine/fresh.ts';
import { isUnlike } from '../engine/sql.ts';
import { workOf } from '../engine/tickets.ts';
import { moveFresh } from './claim-store.ts';

const fresh = (rest: Partial<Fresh> = {}): Fresh => ({
  ...{ lane: 3, priority: 5, tag: 1_764_000_000_123_456, revision: 2, input: '{"a":"b\\n"}', traceparent: null, labels: { team: 'a, b' } },
  ...{ execution: newBytes(), workspace: newBytes(), automation: newBytes(), creator: newBytes(), retry_of: null },
  create_time: new Date(1_764_000_000_123),
  ...rest,
});

describe('what was accepted just now', () => {
  it('is told by a notice, and read from it as it was', () => {
    const rows = [fresh(), fresh({ retry_of: newBytes(), labels: null, input: null, traceparent: '00-a-b-01' })];
    const told = encodeFresh(rows) ?? '';
    expect(decodeFresh(told)).to.deep.equal(rows);
    expect(workOf(Buffer.from(`3,4\n${told}`))).to.deep.equal({ lanes: [3, 4], fresh: rows });
    expect(workOf(Buffer.from('3,4'))).to.deep.equal({ lanes: [3, 4], fresh: [] });
  });

  it('is not told when it is too much for a notice', () => {
    expect(encodeFresh([fresh({ input: 'x'.repeat(40_000) }), fresh({ input: 'x'.repeat(40_000) })])).to.equal(undefined);
  });

  describe('and is claimed by what was told', function () {
    this.timeout(20_000);
    let schema: Schema;
    let connection: PoolConnection;
    let automation: Buffer;
    const me = newBytes();
    const server = { id: newBytes(), epoch: 5 };
    const workspace = newBytes();
    before(async () => {
      schema = await startSchema();
      const { db } = schema;
      automation = await publish(db);
      connection = await schema.pool.getConnection();
      const [now, later] = [db.raw('NOW(6)'), db.raw('NOW(6) + INTERVAL 1 HOUR')];
      const known = { endpoint: 'x:1', labels: '{}', slots: 8, tier: 2, minimum_tier: 1, protocol: 1, draining: false, state: 'LIVE' };
      const seen = { register_time: now, seen_time: now, owner: me, owner_epoch: 5, lease_until: later };
      await db('servers').insert({ id: server.id, ...known, ...seen });
      await db('lanes').insert({ lane: 1, workspace, queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 });
    });
    after(async () => {
      connection.release();
      await schema.stop();
    });

    // Executions in ready, and their claims as a notice would have told them.
    async function told(count: number): Promise<Claimed[]> {
      const { db } = schema;
      const ids = await accept(
        db,
        Array.from({ length: count }, () => ({ automation, workspace })),
      );
      const now = new Date();
      return Promise.all(
        ids.map(async (execution) => {
          const { lane, priority, tag } = await db('ready').where({ execution }).first();
          const row: Ready = {
            ...fresh({ execution, lane, priority, tag, automation, workspace }),
            ...{ limit_key: null, attempt: 1, losses: 0, version: 1, schedule_time: null, base_time: now, now },
          };
          const later = new Date(Date.now() + 3_600_000);
          return { row, workspace, claimId: randomBytes(16), server: server.id, deadline: later, expireTime: later };
        }),
      );
    }
    const claim = async (claimed: readonly Claimed[]): Promise<'claimed' | 'unlike'> => {
      try {
        await moveFresh(connection, me, openClock(), [server], claimed);
        return 'claimed';
      } catch (error) {
        await connection.query('ROLLBACK');
        if (!isUnlike(error)) throw error;
        return 'unlike';
      }
    };
    const standing = async (claimed: readonly Claimed[]) => {
      const ids = claimed.map(({ row }) => row.execution);
      const [ready, running] = await Promise.all(['ready', 'running'].map((table) => schema.db(table).whereIn('execution', ids)));
      return { ready: ready?.length, running: running?.length };
    };

    it('in one go, as a claim that reads would', async () => {
      const claimed = await told(3);
      expect(await claim(claimed)).to.equal('claimed');
      expect(await standing(claimed)).to.deep.equal({ ready: 0, running: 3 });
      const [one] = claimed;
      const row = await schema.db('running').where({ execution: one?.row.execution }).first();
      expect(row).to.include({ attempt: 1, losses: 0, lane: 1, priority: 5, state: 'RUNNING', started: 0, limit_key: null });
      expect(row.claim_id).to.deep.equal(one?.claimId);
    });

    it('all of it, or nothing when somebody else has some', async () => {
      const claimed = await told(3);
      await schema.db('ready').where({ execution: claimed[1]?.row.execution }).delete();
      expect(await claim(claimed)).to.equal('unlike');
      expect(await standing(claimed)).to.deep.equal({ ready: 2, running: 0 });
      expect(await claim(claimed.filter((_, index) => index !== 1))).to.equal('claimed');
    });

    for (const [what, table, key, to, back] of [
      ['the queue is paused', 'lanes', { lane: 1 }, { state: 'PAUSED' }, { state: 'ACTIVE' }],
      ['the lane is for some servers only', 'lanes', { lane: 1 }, { labels: '{"gpu":"true"}' }, { labels: null }],
      ['the server has another owner', 'servers', { id: server.id }, { owner: newBytes() }, { owner: me }],
      ['the server was taken over in between', 'servers', { id: server.id }, { owner_epoch: 6 }, { owner_epoch: 5 }],
      ['the server is lost', 'servers', { id: server.id }, { state: 'LOST' }, { state: 'LIVE' }],
      ['the server is drained', 'servers', { id: server.id }, { drained: true }, { drained: false }],
    ] as const)
      it(`not when ${what}`, async () => {
        const claimed = await told(1);
        await schema.db(table).where(key).update(to);
        expect(await claim(claimed)).to.equal('unlike');
        expect(await standing(claimed)).to.deep.equal({ ready: 1, running: 0 });
        await schema.db(table).where(key).update(back);
        expect(await claim(claimed)).to.equal('claimed');
      });

    it('waits for a takeover of the server that is being committed, and heeds it', async () => {
      const claimed = await told(1);
      const other = await schema.db.transaction();
      await other('servers').where({ id: server.id }).update({ owner: newBytes() });
      const claiming = claim(claimed);
      const first = await Promise.race([claiming, pause(300).then(() => 'waits')]);
      await other.commit();
      expect(first).to.equal('waits');
      expect(await claiming).to.equal('unlike');
      expect(await standing(claimed)).to.deep.equal({ ready: 1, running: 0 });
      await schema.db('servers').where({ id: server.id }).update({ owner: me });
    });

    it('not when the workspace is halted, or its waiting has expired', async () => {
      const claimed = await told(1);
      await schema
        .db('holds')
        .insert({ workspace, mode: 'MAINTENANCE', reason: '', setter: newBytes(), set_time: schema.db.raw('NOW(6)') });
      expect(await claim(claimed)).to.equal('unlike');
      await schema.db('holds').delete();
      await schema.db('ready').where({ execution: claimed[0]?.row.execution }).update({ expire_time: schema.db.raw('NOW(6) - INTERVAL 1 SECOND') }); // biome-ignore format: a line
      expect(await claim(claimed)).to.equal('unlike');
      expect(await standing(claimed)).to.deep.equal({ ready: 1, running: 0 });
    });
  });
});
