import { expect } from 'chai';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { openPool, type Pool, schemaOf } from '#platform/db.ts';
import { fromBytes, newBytes, toBytes } from '#platform/id.ts';
import type { World } from '../../tests/world.ts';
import { caught, draft, endExecution, publish, startExecutions } from './fixture.test.ts';
import { alone, HISTORY } from './partition-system.ts';
import { dropHistory } from './retention-system.ts';
import { lowestId } from './store.ts';

const WEEK_MS = 7 * 24 * 3_600_000;
const KEPT = 5;
const log = { info: () => undefined, warn: () => undefined };

// Writes down what is asked of its connections.
const spied = (pool: Pool, statements: string[]): Pool =>
  Object.create(pool, {
    getConnection: {
      async value() {
        const connection = await pool.getConnection();
        const query = connection.query.bind(connection) as (sql: string, values?: unknown) => Promise<unknown>;
        return Object.assign(connection, {
          query(sql: string, values?: unknown) {
            statements.push(sql);
            return query(sql, values);
          },
        });
      },
    },
  });

describe('retention', function () {
  this.timeout(60_000);
  let world: World;
  let pool: Pool;
  before(async () => {
    world = await startExecutions();
    pool = openPool(world.config, schemaOf(world.config, 'executions'), 2);
  });
  after(async () => {
    await pool.end();
    await world.stop();
  });

  const start = new Date();
  const weeksLater = (weeks: number) => new Date(start.getTime() + weeks * WEEK_MS);
  const idIn = (weeks: number): Buffer => Buffer.concat([lowestId(weeksLater(weeks).getTime()).subarray(0, 6), newBytes().subarray(6)]);
  const drop = (after: number, weeks = KEPT) => dropHistory({ pool, weeks, now: weeksLater(KEPT + after), log });

  // An ended execution with all that is kept of it, made so many weeks from now.
  async function ended(like: Buffer, weeks: number, endWeeks = weeks): Promise<Buffer> {
    const db = world.db('executions');
    const id = idIn(weeks);
    const model = await db('executions').where({ id: like }).first();
    const over = { id, state: 'SUCCEEDED', create_time: weeksLater(weeks), end_time: weeksLater(endWeeks), labels: null, error: null };
    await db('executions').insert({ ...model, ...over });
    await db('results').insert({ execution: id, kind: 'OUTPUT', body: '1' });
    const attempt = {
      number: 1,
      state: 'SUCCEEDED',
      claim_id: newBytes(),
      server: newBytes(),
      sandbox_tier: 2,
      isolation: 'FRESH',
      limits: '[]',
    };
    await db('attempts').insert({ execution: id, ...attempt, start_time: weeksLater(weeks) });
    await db('dead_executions').insert({ execution: id, workspace: model.workspace, automation: model.automation, state: 'DEAD', create_time: weeksLater(weeks) }); // biome-ignore format: a row
    await db('payloads').insert({ execution: id, keep_ms: null, on_read: true, due_time: '9999-12-31' });
    await db('log_chunks').insert({ execution: id, attempt: 1, first_seq: 0, count: 1, bytes: 1, codec: 0, body: 'x' });
    return id;
  }
  const keptOf = async (ids: readonly Buffer[]): Promise<number[]> => {
    const counts = HISTORY.map((table) =>
      world
        .db('executions')(table)
        .count({ n: '*' })
        .whereIn(table === 'executions' ? 'id' : 'execution', ids),
    );
    return (await Promise.all(counts)).map(([row]) => Number(row?.n));
  };
  const everything = async (): Promise<string> => {
    const tables = [
      'ready',
      'timers',
      'waiting',
      'running',
      'slots',
      'lanes',
      'executions',
      'results',
      'attempts',
      'log_chunks',
      'dead_executions',
      'payloads',
    ];
    const all = await Promise.all(tables.map((table) => world.db('executions')(table).select()));
    return JSON.stringify(all.map((rows) => rows.map((row) => JSON.stringify(row)).sort()));
  };

  it('gives its turn back before it answers: the next one does not find it taken', async () => {
    const open = openPool(world.config, schemaOf(world.config, 'executions'), 50);
    const connections = await Promise.all(Array.from({ length: 50 }, () => open.getConnection()));
    for (const connection of connections) connection.release();
    for (let turn = 0; turn < 50; turn += 1) expect(await alone(open, 'a turn', async () => turn)).to.equal(turn);
    await open.end();
  });

  it('drops whole weeks, keeps those in which something is open or ended late, and changes nothing of what is kept', async () => {
    const person = world.person();
    const client = world.as(person, ExecutionServiceService);
    const automationId = await publish(world, { workspace: person.workspace });
    const open = await client.createExecution({ execution: draft(automationId, { scheduleTime: weeksLater(4) }), requestId: '' });
    const like = toBytes('execution', open.id);
    const old = [await ended(like, 0), await ended(like, 0)];
    const live = [await ended(like, 2), await ended(like, 2)];
    const seen = await client.getExecution({ id: open.id });
    const before = await everything();
    const past = [await ended(like, 1), await ended(like, 1)];
    expect(await keptOf(past)).to.deep.equal([2, 2, 2, 2, 2, 2]);

    expect((await drop(2, 0)).dropped, 'for ever').to.deep.equal([]);
    const statements: string[] = [];
    const first = await dropHistory({ pool: spied(pool, statements), weeks: KEPT, now: weeksLater(KEPT + 2), log });
    const changes = statements.filter((sql) => !/^(SELECT|SET|DO) /.test(sql));
    expect(changes).to.have.length(2 * HISTORY.length);
    for (const sql of changes) expect(sql, 'no row by itself').to.match(/^ALTER TABLE \w+ DROP PARTITION \w+$/);
    expect(first.dropped).to.have.length(2).and.include('older');
    expect(first.waiting).to.have.length(1);
    expect(await keptOf(past), 'a past week').to.deep.equal([0, 0, 0, 0, 0, 0]);
    expect(await keptOf([...old, ...live]), 'the open week, and the coming one').to.deep.equal([4, 4, 4, 4, 4, 4]);
    expect(await everything()).to.equal(before);
    expect(await client.getExecution({ id: open.id })).to.deep.equal(seen);
    expect((await caught(client.getExecution({ id: fromBytes('execution', past[0] as Buffer) }))).reason).to.equal('RESOURCE_NOT_FOUND');

    await endExecution(world, open.id, 'CANCELLED', { end_time: weeksLater(3) });
    expect((await drop(2)).waiting, 'it ended late').to.deep.equal(first.waiting);
    await endExecution(world, open.id, 'CANCELLED', { end_time: weeksLater(1) });
    expect(await drop(2)).to.deep.equal({ dropped: first.waiting, waiting: [] });
    expect(await keptOf(old)).to.deep.equal([0, 0, 0, 0, 0, 0]);
    expect(await keptOf(live)).to.deep.equal([2, 2, 2, 2, 2, 2]);
  });
});
