import { expect } from 'chai';
import {
  Uniqueness_Conflict as Conflict,
  type Execution,
  Execution_State as State,
  type Uniqueness,
} from '#gen/millrace/executions/v1/execution.ts';
import { openPool, type Pool } from '#platform/db.ts';
import { openLog } from '#platform/log.ts';
import { type Person, until } from '../../tests/world.ts';
import { breaches } from './engine/fixture.test.ts';
import { caught, claim, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';
import { tidyUnique } from './unique-system.ts';

describe('an execution that is the only one with its key', () => {
  let world: Awaited<ReturnType<typeof startExecutions>>;
  let ada: Person;
  let automationId: string;
  let pool: Pool;
  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_RECONCILE_MS: '3600000' });
    pool = openPool(world.config, `${world.config.databasePrefix}_executions`, 1);
  });
  after(async () => {
    await pool.end();
    await world.stop();
  });
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace });
  });
  afterEach(async () => expect(await breaches(world.db('executions'))).to.deep.equal({ misplaced: 0, slots: 0 }));

  const rows = () => world.db('executions')('unique_keys');
  const create = (onConflict: Conflict, rest: Partial<Uniqueness> = {}, requestId = '', more: Partial<Execution> = {}, person = ada) =>
    clientOf(world, person).createExecution({
      execution: draft(automationId, { ...more, unique: { key: 'order 7', ttl: undefined, onConflict, ...rest } }),
      requestId,
    });
  const state = async (id: string) => (await clientOf(world, ada).getExecution({ id })).state;

  it('USE_EXISTING: the answer is the one that is open, until it has ended', async () => {
    const first = await create(Conflict.USE_EXISTING);
    expect(first.unique).to.equal(undefined);
    await claim(world, first.id);
    expect(await create(Conflict.CONFLICT_UNSPECIFIED, {}, 'a', { priority: 1 })).to.include({ id: first.id, state: State.RUNNING });
    expect((await create(Conflict.USE_EXISTING, { key: 'order 8' })).id).to.not.equal(first.id);
    expect((await create(Conflict.USE_EXISTING, { key: 'ORDER 7' })).id).to.not.equal(first.id);
    await endExecution(world, first.id, 'SUCCEEDED');
    expect((await create(Conflict.CONFLICT_UNSPECIFIED, {}, 'a', { priority: 1 })).id).to.equal(first.id); // the call that was answered so before
    const second = await create(Conflict.USE_EXISTING);
    expect(second).to.include({ state: State.QUEUED }).and.not.include({ id: first.id });
    const eve = world.person();
    automationId = await publish(world, { workspace: eve.workspace });
    expect((await create(Conflict.FAIL, {}, '', {}, eve)).state).to.equal(State.QUEUED);
  });

  it('FAIL: the next one is refused, with the id of the one that is there, and keeps no key', async () => {
    const first = await create(Conflict.FAIL);
    const refused = await caught(create(Conflict.FAIL, {}, 'b'));
    expect(refused).to.include({ reason: 'EXECUTION_EXISTS', code: 6 });
    expect(refused.metadata).to.include({ id: first.id });
    await clientOf(world, ada).cancelExecution({ id: first.id, reason: '' });
    expect((await create(Conflict.FAIL, {}, 'b')).id).to.not.equal(first.id);
  });

  it('CANCEL_EXISTING: the next one takes the key over, and the one before is cancelled', async () => {
    const first = await create(Conflict.CANCEL_EXISTING);
    const second = await create(Conflict.CANCEL_EXISTING);
    expect(second).to.include({ state: State.QUEUED }).and.not.include({ id: first.id });
    await until('the first to end', async () => (await state(first.id)) === State.CANCELLED);
    await until('it to be written down', async () => (await rows().whereNotNull('replaces')).length === 0);
    expect((await create(Conflict.USE_EXISTING)).id).to.equal(second.id);
  });

  it('many at once: one is made', async () => {
    const made = await Promise.all(Array.from({ length: 20 }, () => create(Conflict.USE_EXISTING)));
    expect(new Set(made.map(({ id }) => id)).size).to.equal(1);
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => create(Conflict.FAIL, { key: 'other' })));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).to.have.length(1);
  });

  it('for a time: whether or not it has ended', async () => {
    const ttl = { seconds: 3600, nanos: 0 };
    const first = await create(Conflict.USE_EXISTING, { ttl });
    await endExecution(world, first.id, 'FAILED');
    expect(await create(Conflict.USE_EXISTING, { ttl })).to.include({ id: first.id, state: State.FAILED });
    await rows().update({ expire_time: world.db('executions').raw('NOW(6)') });
    expect((await create(Conflict.USE_EXISTING, { ttl })).id).to.not.equal(first.id);
  });

  it('leaves no key when it is refused for its limit', async () => {
    const concurrency = { max: 1, key: [], policy: 1 as const, maxQueued: 1 };
    automationId = await publish(world, { workspace: ada.workspace, specs: [{ concurrency }] });
    for (const key of ['1', '2']) await create(Conflict.FAIL, { key });
    expect(await caught(create(Conflict.FAIL, { key: '3', ttl: { seconds: 3600, nanos: 0 } }))).to.include({ reason: 'KEY_QUEUE_FULL' });
    expect(await rows().where({ unique_key: Buffer.from('3') })).to.deep.equal([]);
  });

  it('is tidied: what was not cancelled is, and keys that nothing has go', async () => {
    await rows().delete();
    const [open, ended, first] = [
      await create(Conflict.FAIL, { key: 'open' }),
      await create(Conflict.FAIL, { key: 'ended' }),
      await create(Conflict.FAIL, { key: 'first' }),
    ];
    await endExecution(world, ended.id, 'SUCCEEDED');
    const { execution } = await rows().where({ unique_key: Buffer.from('first') }).first(); // biome-ignore format: a line
    await rows().where({ unique_key: Buffer.from('open') }).update({ replaces: execution }); // biome-ignore format: a line
    const client = clientOf(world, ada);
    const cancelled: string[] = [];
    const cancel = async (_: Buffer, id: Buffer) => void cancelled.push(id.toString('hex'));
    await tidyUnique({ pool, cancel, log: openLog('silent') });
    expect(cancelled).to.deep.equal([execution.toString('hex')]);
    const keys = (await rows().pluck('unique_key')).map(String);
    expect(keys.sort()).to.deep.equal(['first', 'open']);
    expect((await client.getExecution({ id: open.id })).state).to.equal(State.QUEUED);
    expect((await client.getExecution({ id: first.id })).state).to.equal(State.QUEUED);
  });
});
