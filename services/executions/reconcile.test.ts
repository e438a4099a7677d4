import { expect } from 'chai';
import { openBus } from '#platform/bus.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { accept, breaches, type Schema, startSchema } from './engine/fixture.test.ts';
import { extendHistory, HISTORY } from './partition-system.ts';
import { find, reconcile } from './reconcile-system.ts';

describe('the reconciler', () => {
  let schema: Schema;
  let bus: ReturnType<typeof openBus>;
  before(async () => {
    schema = await startSchema();
    bus = openBus(schema.world.config, openLog('silent'));
  });
  after(async () => {
    await bus.stop();
    await schema.stop();
  });

  const run = () => reconcile({ pool: schema.pool, bus, log: openLog('silent') });
  const hex = (ids: Buffer[]) => ids.map((id) => id.toString('hex')).sort();
  const claim = async (execution: Buffer, limit_key: string | null = null) => {
    const now = schema.db.raw('NOW(6)');
    const row = {
      execution,
      workspace: newBytes(),
      claim_id: newBytes(),
      attempt: 1,
      losses: 0,
      server: newBytes(),
      lane: 1,
      priority: 5,
      limit_key,
    };
    await schema.db('running').insert({ ...row, state: 'RUNNING', started: true, claim_time: now, deadline: now, expire_time: now });
  };

  it('finds nothing where all is well', async () => {
    const [running] = await accept(schema.db, [{}, { inMs: 60_000 }, {}]);
    await schema.db('ready').where({ execution: running }).delete();
    await claim(running as Buffer);
    expect(await run()).to.deep.equal({ places: [], limits: [] });
  });

  it('puts back what stands nowhere, with the attempt that nobody can tell about lost', async () => {
    const [lost] = (await accept(schema.db, [{ lane: 4 }])) as [Buffer];
    await schema.db('ready').where({ execution: lost }).delete();
    const attempt = {
      execution: lost,
      number: 1,
      state: 'RUNNING',
      claim_id: newBytes(),
      server: newBytes(),
      sandbox_tier: 2,
      isolation: 'FRESH',
      limits: '[]',
    };
    await schema.db('attempts').insert({ ...attempt, start_time: schema.db.raw('NOW(6)') });
    expect(hex((await run())?.places ?? [])).to.deep.equal(hex([lost]));
    expect(await schema.db('ready').where({ execution: lost }).first()).to.include({ lane: 4, attempt: 2, losses: 0 });
    expect(await schema.db('attempts').where({ execution: lost }).first()).to.include({ state: 'LOST' });
    expect(await run()).to.deep.equal({ places: [], limits: [] });
  });

  it('takes away what stands twice, has ended, or never was', async () => {
    const [twice, ended] = (await accept(schema.db, [{}, {}])) as [Buffer, Buffer];
    await claim(twice);
    await schema.db('executions').where({ id: ended }).update({ state: 'CANCELLED' });
    const nobody = newBytes();
    await claim(nobody);
    expect(hex((await run())?.places ?? [])).to.deep.equal(hex([twice, ended, nobody]));
    expect(await schema.db('running').where({ execution: twice })).to.have.length(1);
    for (const execution of [ended, nobody]) {
      for (const place of ['ready', 'running']) expect(await schema.db(place).where({ execution })).to.have.length(0);
    }
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
    expect(await run()).to.deep.equal({ places: [], limits: [] });
  });

  it('gives slots back to whom they belong, and lets waiters in', async () => {
    await schema.db('limits').insert({ limit_key: 'k', max: 2, used: 2 });
    const [first, second, third] = (await accept(schema.db, [
      { limitKey: 'k' },
      { limitKey: 'k', waits: true },
      { limitKey: 'k', waits: true },
    ])) as [Buffer, Buffer, Buffer];
    await schema.db('slots').where({ execution: first }).delete(); // one that is missing,
    await schema.db('slots').insert({ limit_key: 'k', execution: newBytes() }); // and one that nobody has
    expect((await run())?.limits).to.deep.equal(['k']);
    expect(hex((await schema.db('slots').where({ limit_key: 'k' })).map(({ execution }) => execution))).to.deep.equal(hex([first, second]));
    expect(await schema.db('limits').where({ limit_key: 'k' }).first()).to.include({ used: 2 });
    expect(await schema.db('ready').where({ execution: second })).to.have.length(1);
    expect(await schema.db('waiting').where({ execution: third })).to.have.length(1);
    expect(await run()).to.deep.equal({ places: [], limits: [] });
  });

  it('makes a limit again that somebody waits for', async () => {
    const [first, second] = (await accept(schema.db, [
      { limitKey: 'gone', waits: true },
      { limitKey: 'gone', waits: true },
    ])) as [Buffer, Buffer];
    expect((await run())?.limits).to.deep.equal(['gone']);
    expect(await schema.db('ready').where({ execution: first })).to.have.length(1);
    expect(await schema.db('waiting').where({ execution: second })).to.have.length(1);
    expect(await schema.db('limits').where({ limit_key: 'gone' }).first()).to.include({ max: 1, used: 1, policy: 'QUEUE' });
    expect(await run()).to.deep.equal({ places: [], limits: [] });
  });

  it('leaves alone what a person holds', async () => {
    const [held] = (await accept(schema.db, [{ inMs: 60_000 }])) as [Buffer];
    await schema
      .db('timers')
      .where({ execution: held })
      .update({ kind: 'PAUSE', resume_time: schema.db.raw('NOW(6)') });
    await schema.db('executions').where({ id: held }).update({ state: 'PAUSED' });
    expect(await run()).to.deep.equal({ places: [], limits: [] });
  });

  it('works in one process at a time', async () => {
    const other = await schema.pool.getConnection();
    await other.query("SELECT GET_LOCK(CONCAT(DATABASE(), ' reconcile'), 0)");
    expect(await run()).to.equal(undefined);
    expect(await find(other)).to.deep.equal({ places: [], limits: [] });
    other.destroy();
  });

  it('makes the partitions of the coming weeks, once', async () => {
    const inTwoWeeks = new Date(Date.now() + 14 * 24 * 3_600_000);
    expect(await extendHistory(schema.pool, inTwoWeeks)).to.deep.equal(HISTORY);
    expect(await extendHistory(schema.pool, inTwoWeeks)).to.deep.equal([]);
    expect(await schema.db('executions').count('* as n').first()).to.not.deep.equal({ n: 0 });
  });
});
