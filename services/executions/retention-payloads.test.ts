import { expect } from 'chai';
import type { Retention } from '#gen/millrace/automations/v1/spec.ts';
import { ControlServiceService, ExecutionFilter } from '#gen/millrace/executions/v1/control_service.ts';
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { openPool, type Pool, schemaOf } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { type Person, until, type World } from '../../tests/world.ts';
import { caught, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';
import { erasePayloads } from './retention-payloads-system.ts';

const LARGE = 'x'.repeat(20_000);
const KEEP: Retention = { payloads: { seconds: 3600, nanos: 0 }, deleteAfterUse: false };
const AT_ONCE: Retention = { payloads: { seconds: 0, nanos: 0 }, deleteAfterUse: false };
const ONCE_READ: Retention = { payloads: undefined, deleteAfterUse: true };

describe('the retention of input and output', function () {
  this.timeout(60_000);
  let world: World;
  let pool: Pool;
  let ann: Person;
  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_RECONCILE_MS: '3600000', MILLRACE_EXECUTIONS_KEEP_ALIVE_MS: '200' });
    pool = openPool(world.config, schemaOf(world.config, 'executions'), 2);
    ann = world.person();
  });
  after(async () => {
    await pool.end();
    await world.stop();
  });

  const get = (id: string): Promise<Execution> => clientOf(world, ann).getExecution({ id });

  // An execution that has ended well, with an input that stands in results.
  async function done(retention: Retention | undefined, output = '{"n":2}'): Promise<string> {
    const automationId = await publish(world, { workspace: ann.workspace, specs: [retention ? { retention } : {}] });
    const { id } = await clientOf(world, ann).createExecution({
      execution: draft(automationId, { input: { large: LARGE } }),
      requestId: '',
    });
    await erasePayloads(pool);
    expect((await get(id)).input, 'as long as it is open').to.deep.equal({ large: LARGE });
    await endExecution(world, id, 'SUCCEEDED', { output });
    return id;
  }
  const later = (id: string, seconds: number) =>
    world
      .db('executions')('payloads')
      .where({ execution: toBytes('execution', id) })
      .update({ due_time: world.db('executions').raw('due_time - INTERVAL ? SECOND', [seconds]) });

  it('is that of the execution unless the automation says otherwise', async () => {
    const id = await done(undefined);
    await get(id);
    await erasePayloads(pool);
    expect(await get(id)).to.deep.include({ input: { large: LARGE }, output: { n: 2 }, payloadDeletedTime: undefined });
  });

  it('erases them so long after the end, and keeps the execution', async () => {
    const [kept, gone] = [await done(KEEP), await done(AT_ONCE)];
    await erasePayloads(pool);
    expect((await get(kept)).output).to.deep.equal({ n: 2 });
    const after = await get(gone);
    expect(after).to.deep.include({ input: undefined, output: undefined });
    expect(after.payloadDeletedTime).to.be.instanceOf(Date);
    const execution = toBytes('execution', gone);
    expect(await world.db('executions')('results').where({ execution })).to.deep.equal([]);
    expect(await world.db('executions')('payloads').where({ execution })).to.deep.equal([]);
    await later(kept, 3000);
    await erasePayloads(pool);
    expect((await get(kept)).output, 'not yet').to.deep.equal({ n: 2 });
    await later(kept, 600);
    await erasePayloads(pool);
    expect((await get(kept)).output).to.equal(undefined);
  });

  it('erases them a minute after somebody has read the result, and not before', async () => {
    const id = await done(ONCE_READ);
    await later(id, 1_000_000);
    await erasePayloads(pool);
    await clientOf(world, ann).listExecutions({ states: [], automationId: '', createTimeFrom: undefined, createTimeTo: undefined, pageSize: 0, pageToken: '' }); // biome-ignore format: a row
    const due = () =>
      world
        .db('executions')('payloads')
        .where({ execution: toBytes('execution', id) })
        .where('due_time', '<', '9000-01-01');
    expect(await due(), 'a list shows none of it').to.deep.equal([]);
    const result = await clientOf(world, ann).getExecutionResult({ id });
    expect(result.output).to.deep.equal({ n: 2 });
    await erasePayloads(pool);
    expect((await get(id)).output, 'within the minute').to.deep.equal({ n: 2 });
    expect(await due()).to.have.length(1);
    await later(id, 61);
    await erasePayloads(pool);
    expect((await get(id)).output).to.equal(undefined);
    expect((await clientOf(world, ann).getExecutionResult({ id })).output).to.equal(undefined);
  });

  it('also erases what a call that waited for the end, or a watch, was answered', async () => {
    const automationId = await publish(world, { workspace: ann.workspace, specs: [{ retention: ONCE_READ }] });
    const client = clientOf(world, ann);
    const waits = [
      client.runAndWait({ execution: draft(automationId), wait: { seconds: 20, nanos: 0 }, requestId: '' }),
      (async () => {
        const { id } = await client.createExecution({ execution: draft(automationId), requestId: '' });
        for await (const { execution } of client.watchExecution({ id })) if (execution?.endTime) return execution;
        throw new Error('it has not ended');
      })(),
    ];
    const db = world.db('executions');
    const open = () => db('executions').where({ automation: toBytes('automation', automationId), end_time: null });
    await until('both are there', async () => (await open()).length === 2);
    for (const { id } of await open()) await endExecution(world, fromBytes('execution', id), 'SUCCEEDED', { output: '1' });
    for (const { id } of await Promise.all(waits)) {
      const [row] = await db('payloads').where({ execution: toBytes('execution', id) });
      expect(row.due_time).to.be.instanceOf(Date);
    }
  });

  it('leaves nothing to repeat with, unless another input is sent, and says so', async () => {
    const id = await done(AT_ONCE);
    await erasePayloads(pool);
    const client = clientOf(world, ann);
    expect((await caught(client.retryExecution({ id, requestId: '' }))).reason).to.equal('PAYLOAD_DELETED');
    const control = world.as(ann, ControlServiceService);
    const { automationId } = await get(id);
    const filter = ExecutionFilter.fromPartial({ automationId, states: [7] });
    const many = await control.retryExecutions({ filter, pageSize: 0, pageToken: '' });
    expect(many.items.map(({ reason }) => reason)).to.deep.equal(['PAYLOAD_DELETED']);
    expect((await client.retryExecution({ id, input: { n: 3 }, requestId: '' })).input).to.deep.equal({ n: 3 });
    expect((await control.explainExecution({ id })).causes[0]?.message).to.include('Its input and output were erased');
  });
});
