import { expect } from 'chai';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { fromBytes, newBytes } from '#platform/id.ts';
import { accept, breaches, type Schema, startSchema } from './fixture.test.ts';
import { askToStop, type Ending, endWaiting, type Left } from './leave.ts';
import { expired } from './machine.ts';

describe('leaving without having run', () => {
  let schema: Schema;
  before(async () => {
    schema = await startSchema();
  });
  after(() => schema.stop());

  const end = (endings: Ending[]): Promise<Left> => schema.db.transaction((tx) => endWaiting({ query: (sql) => tx.raw(sql) }, endings));
  const row = (id: Buffer) => schema.db('executions').where({ id }).first();

  it('ends those that stand in ready, waiting or timers, with an event and a version', async () => {
    await schema.db('limits').insert({ limit_key: 'a', max: 0, used: 0 });
    const ids = await accept(schema.db, [{}, { limitKey: 'a', waits: true }, { inMs: 60_000 }]);
    const { left, outbox } = await schema.db.transaction(async (tx) => ({
      left: await endWaiting(
        { query: (sql) => tx.raw(sql) },
        ids.map((execution) => ({ execution, to: 'CANCELLED', reason: 'no need' })),
      ),
      outbox: await tx('outbox').select('type', 'data'),
    }));
    expect(left.ended.size).to.equal(3);
    for (const id of ids) expect(await row(id)).to.deep.include({ state: 'CANCELLED', version: 2, cancel_reason: 'no need', error: null });
    expect((await row(ids[0] as Buffer)).end_time).to.be.instanceOf(Date);
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
    expect(outbox.map(({ type }) => type)).to.deep.equal(['execution.ended']);
    const told = outbox.flatMap(({ data }) => ExecutionEvent.decode(data).items.map(({ execution }) => execution));
    expect(told.map((one) => one?.id)).to.have.members(ids.map((id) => fromBytes('execution', id)));
    expect(told.every((one) => one?.version === 2 && one.endTime !== undefined)).to.equal(true);
  });

  it('gives the slot of a ready one to the first waiter, in the order of their coming', async () => {
    await schema.db('limits').insert({ limit_key: 'b', max: 1, used: 1 });
    const [holder, first, second] = await accept(schema.db, [
      { limitKey: 'b', lane: 7 },
      { limitKey: 'b', waits: true, lane: 8 },
      { limitKey: 'b', waits: true, lane: 9 },
    ]); // biome-ignore format: a list
    const left = await end([{ execution: holder as Buffer, to: 'CANCELLED' }]);
    expect([...left.lanes]).to.deep.equal([8]);
    expect(await schema.db('ready').where({ execution: first }).first()).to.include({ lane: 8, limit_key: 'b' });
    expect(await schema.db('waiting').where({ execution: second }).first()).to.include({ lane: 9 });
    expect(await schema.db('slots').where({ limit_key: 'b' })).to.have.length(1);
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
    const both = await end([first as Buffer, second as Buffer].map((execution) => ({ execution, to: 'CANCELLED' })));
    expect(both.ended.size).to.equal(2);
    expect(await schema.db('limits').where({ limit_key: 'b' }).first()).to.include({ used: 0 });
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  it('times out only what has expired', async () => {
    const [old, young] = await accept(schema.db, [{ expiresInMs: -1 }, {}]);
    const error = expired('ScheduleToStartTimeout');
    const left = await end([old as Buffer, young as Buffer].map((execution) => ({ execution, to: 'TIMED_OUT', error })));
    expect(left.ended).to.deep.equal(new Set([(old as Buffer).toString('hex')]));
    expect(await row(old as Buffer)).to.deep.include({ state: 'TIMED_OUT', error });
    expect(await row(young as Buffer)).to.include({ state: 'QUEUED' });
  });

  it('leaves alone what runs, has ended or never was', async () => {
    const [running] = (await accept(schema.db, [{}])) as [Buffer];
    await schema.db('ready').where({ execution: running }).delete();
    const now = schema.db.raw('NOW(6)');
    const deadline = schema.db.raw('NOW(6) + INTERVAL 1 HOUR');
    const claim = {
      claim_id: newBytes(),
      attempt: 1,
      losses: 0,
      server: newBytes(),
      lane: 1,
      priority: 5,
      state: 'RUNNING',
      started: true,
    };
    await schema
      .db('running')
      .insert({ ...claim, execution: running, workspace: newBytes(), claim_time: now, deadline, expire_time: deadline });
    expect((await end([running, newBytes()].map((execution) => ({ execution, to: 'CANCELLED' })))).ended.size).to.equal(0);
    const ask = () => schema.db.transaction((tx) => askToStop({ query: (sql) => tx.raw(sql) }, running, 'enough'));
    expect(await ask()).to.deep.equal(claim.server);
    expect(await ask()).to.equal(undefined);
    const stopping = await schema
      .db('running')
      .select('state', schema.db.raw('TIMESTAMPDIFF(SECOND, NOW(6), deadline) AS seconds'))
      .where({ execution: running })
      .first();
    expect(stopping.state).to.equal('CANCELLING');
    expect(stopping.seconds).to.be.within(20, 25);
    expect(await row(running)).to.include({ state: 'QUEUED', cancel_reason: 'enough' });
  });

  it('keeps its word when many end at the same time as others are let in', async () => {
    await schema.db('limits').insert({ limit_key: 'c', max: 2, used: 2 });
    const ids = await accept(
      schema.db,
      Array.from({ length: 40 }, (_, index) => ({ limitKey: 'c', waits: index >= 2 })),
    );
    let repeats = 0;
    await Promise.all(
      ids.map(async (execution) => {
        for (let ended = false; !ended; ) {
          ended = await end([{ execution, to: 'CANCELLED' }]).then(
            (left) => left.ended.size === 1,
            () => false,
          );
          if (!ended) repeats += 1;
        }
      }),
    );
    expect(await schema.db('limits').where({ limit_key: 'c' }).first()).to.include({ used: 0 });
    expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });
    expect(repeats).to.be.below(400);
  });
});
