import { expect } from 'chai';
import { openLog } from '#platform/log.ts';
import { until } from '../../../tests/world.ts';
import { accept, breaches, publish, type Schema, startSchema } from '../engine/fixture.test.ts';
import { openSpecs } from '../engine/specs.ts';
import { openTimers, type Timers } from './timers.ts';

describe('timers', function () {
  this.timeout(20_000);
  let schema: Schema;
  let automation: Buffer;
  const open: Timers[] = [];
  const due: string[] = [];
  before(async () => {
    schema = await startSchema();
    automation = await publish(schema.db);
  });
  afterEach(async () => {
    for (const timers of open.splice(0)) await timers.stop();
    due.length = 0;
  });
  after(() => schema.stop());

  function run(): Timers {
    const { pool } = schema;
    const timers = openTimers({
      pool,
      log: openLog('silent'),
      specs: openSpecs(pool),
      due: (ids) => due.push(...ids.map((id) => id.toString('hex'))),
      crowded: () => undefined,
      ended: () => undefined,
    });
    open.push(timers);
    return timers;
  }
  const count = async (table: string): Promise<number> => Number((await schema.db(table).count({ n: '*' }).first())?.n);
  const clean = async () => expect(await breaches(schema.db)).to.deep.equal({ misplaced: 0, slots: 0 });

  it('lets each of a thousand start once, though two dispatchers look', async () => {
    const ids = await accept(
      schema.db,
      Array.from({ length: 1000 }, (_, index) => ({ automation, inMs: index % 10 })),
    );
    run();
    run();
    await until('all to be due', () => due.length >= 1000);
    expect(new Set(due)).to.deep.equal(new Set(ids.map((id) => id.toString('hex'))));
    expect(due).to.have.length(1000);
    expect(await count('ready')).to.equal(1000);
    await clean();
    await schema.db('ready').delete();
    await schema.db('executions').delete();
  });

  it('lets nothing start before its time', async () => {
    const [id] = (await accept(schema.db, [{ automation, inMs: 700 }])) as [Buffer];
    run();
    const early = async () =>
      Number((await schema.db('timers').where('due_time', '>', schema.db.raw('NOW(6)')).count({ n: '*' }).first())?.n);
    while ((await early()) === 1) expect(due).to.deep.equal([]);
    await until('it to start', () => due.length === 1);
    expect(due).to.deep.equal([id.toString('hex')]);
    await schema.db('ready').delete();
    await schema.db('executions').delete();
  });

  it('takes a slot for what is due, or puts it behind its limit', async () => {
    await schema.db('limits').insert({ limit_key: 'k', max: 2, used: 0 });
    await accept(
      schema.db,
      Array.from({ length: 5 }, () => ({ automation, limitKey: 'k', inMs: 0 })),
    );
    run();
    await until('all to be due', () => due.length === 5);
    expect([await count('ready'), await count('waiting'), await count('slots'), await count('timers')]).to.deep.equal([2, 3, 2, 0]);
    expect(await schema.db('limits').first()).to.include({ used: 2 });
    await clean();
    for (const table of ['ready', 'waiting', 'slots', 'limits', 'executions']) await schema.db(table).delete();
  });

  it('skips what finds no place of a limit that lets nobody wait, but no retry', async () => {
    await schema.db('limits').insert({ limit_key: 'd', max: 1, used: 0, policy: 'DROP_NEW' });
    const ids = await accept(
      schema.db,
      Array.from({ length: 3 }, (_, index) => ({ automation, limitKey: 'd', inMs: index / 10 })),
    );
    await schema.db('timers').where({ execution: ids[2] }).update({ kind: 'RETRY', attempt: 2 });
    run();
    await until('all to be due', () => due.length === 3);
    expect([await count('ready'), await count('waiting'), await count('timers')]).to.deep.equal([1, 1, 0]);
    expect(await schema.db('executions').where({ id: ids[1] }).first()).to.deep.include({
      state: 'SKIPPED',
      error: { type: 'ConcurrencyLimit', message: 'Others held all places of its concurrency key.', traceback: '', retryable: false },
    });
    await clean();
  });
});
