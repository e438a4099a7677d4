import { mock } from 'node:test';
import { expect } from 'chai';
import { Line, Result, Result_Outcome } from '#gen/millrace/runner/v1/job.ts';
import { type Db, openPool, type Pool, schemaOf } from '#platform/db.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { startWorld, until, type World } from '../../../tests/world.ts';
import { accept, publish, schemaOnly } from '../engine/fixture.test.ts';
import { openSpecs } from '../engine/specs.ts';
import { SHORT } from './fixture.test.ts';
import { openIntake } from './intake.ts';
import { openIntakeMemory } from './intake-memory.ts';
import { module as dispatcher } from './module.ts';
import { giveUpServers } from './overdue.ts';
import { startPeer } from './peer.test.ts';

describe('the fence', function () {
  this.timeout(60_000);
  let world: World;
  let db: Db;
  let pool: Pool;
  before(async () => {
    world = await startWorld({ targets: ['executions', 'dispatcher'], modules: [schemaOnly, dispatcher], env: SHORT });
    db = world.db('executions');
    pool = openPool(world.config, schemaOf(world.config, 'executions'), 4);
    await db('lanes').insert({ lane: 1, workspace: newBytes(), queue: 'q', selector: 'any', fairness_key: '', state: 'ACTIVE', weight: 1 });
  });
  after(async () => {
    await pool.end();
    await world.stop();
  });

  // A server of another protocol, which the dispatcher leaves alone.
  async function server(leaseSeconds: number, owner: Buffer | null): Promise<Buffer> {
    const id = newBytes();
    const now = db.raw('NOW(6)');
    const lease = db.raw('NOW(6) + INTERVAL ? SECOND', [leaseSeconds]);
    const known = { endpoint: 'x:1', labels: '{}', slots: 8, tier: 2, minimum_tier: 1, protocol: 99, draining: false, state: 'LIVE' };
    await db('servers').insert({ id, ...known, register_time: now, seen_time: now, owner, owner_epoch: 5, lease_until: lease });
    return id;
  }

  for (const how of ['behind it', 'by what the claim knew'] as const)
    it(`is read with a lock: who waited for a new claim to be committed does not write on the old one, ${how}`, async () => {
      const isKnown = how === 'by what the claim knew';
      const memory = openIntakeMemory();
      const me = newBytes();
      const mine = await server(3600, me);
      const [execution] = (await accept(db, [{ automation: await publish(db), inMs: 3_600_000 }])) as [Buffer];
      const claimId = newBytes();
      const later = db.raw('NOW(6) + INTERVAL 1 HOUR');
      const claim = {
        execution,
        workspace: newBytes(),
        claim_id: claimId,
        attempt: 1,
        losses: 0,
        server: mine,
        lane: 1,
        priority: 5,
        started: !isKnown,
      };
      await db('timers').where({ execution }).delete();
      await db('running').insert({ ...claim, state: 'RUNNING', claim_time: db.raw('NOW(6)'), deadline: later, expire_time: later });
      const intake = openIntake({
        pool,
        held: () => 0,
        log: openLog('silent'),
        owner: me,
        specs: openSpecs(pool),
        memory,
        written: () => undefined,
      });
      if (isKnown) {
        const { workspace, automation, creator, create_time } = await db('executions').where({ id: execution }).first();
        const [[{ now }]] = await db.raw('SELECT NOW(6) AS now');
        const told = { automation, revision: 1, creator, create_time, version: 1, retry_of: null, labels: null, schedule_time: null };
        const place = { lane: 1, priority: 5, tag: 0, limit_key: null, attempt: 1, losses: 0, input: null, traceparent: null };
        const row = { ...place, ...told, execution, workspace, base_time: create_time, now };
        memory.clock.hear(now);
        memory.keep({ row, workspace, claimId, server: mine, deadline: now, expireTime: now });
      }
      const result = isKnown ? Result.fromPartial({ outcome: Result_Outcome.SUCCEEDED, outputJson: '1' }) : undefined;
      const other = await db.transaction();
      await other('running').where({ execution }).update({ claim_id: newBytes() });
      const told = intake.add({ server: mine, epoch: 5, execution, claimId, lines: [Line.fromPartial({ seq: 0, text: 'stale' })], result });
      await until('it to wait for the lock', async () => {
      await pause(150); // the table is made anew only when nobody has read it for 100 ms
      const [[{ n }]] = await db.raw("SELECT COUNT(*) AS n FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%running%'"); // biome-ignore format: a probe
      return n > 0;
    }); // biome-ignore format: a probe
      await other.commit();
      expect(await told).to.deep.equal({ kind: 'STALE' });
      expect(await db('log_chunks').where({ execution })).to.deep.equal([]);
      await db('running').where({ execution }).delete();
    });

  it('tells a repeated attempt from the one before, although it has the same number', async () => {
    const claims: string[] = [];
    const peer = await startPeer({
      refuse: (job) => {
        claims.push(`${job.attempt} ${job.claimId.toString('hex')}`);
        return claims.length < 4;
      },
    });
    await peer.register(db);
    const [id] = (await accept(db, [{ automation: await publish(db) }])) as [Buffer];
    await until('it to end', async () => (await db('executions').where({ id }).first()).end_time, 30_000);
    expect(new Set(claims).size).to.equal(4);
    expect(new Set(claims.map((claim) => claim.split(' ')[0]))).to.deep.equal(new Set(['1']));
    await peer.vanish();
  });

  it('of leases is the database’s clock, however wrong the own one is', async () => {
    const lives = await server(60, null);
    const gone = await server(-60, null);
    const skewMs = 3_600_000;
    for (const now of [Date.now() + skewMs, Date.now() - skewMs]) {
      mock.timers.enable({ apis: ['Date'], now });
      const given = await giveUpServers(pool, []).finally(() => mock.timers.reset());
      expect(given.some((id) => id.equals(lives))).to.equal(false);
      const { state } = await db('servers').where({ id: gone }).first();
      expect(state).to.equal('LOST');
    }
  });
});
