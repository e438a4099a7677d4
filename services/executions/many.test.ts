import { expect } from 'chai';
import {
  CancelExecutionsRequest,
  ControlServiceService,
  ExecutionFilter,
  RetryExecutionsRequest,
  WatchExecutionsRequest,
  type WatchExecutionsResponse,
} from '#gen/millrace/executions/v1/control_service.ts';
import { type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { type Person, until } from '../../tests/world.ts';
import { caught, claim, clientOf, draft, endExecution, publish, startExecutions } from './fixture.test.ts';

describe('many executions at once', () => {
  let world: Awaited<ReturnType<typeof startExecutions>>;
  let ada: Person;
  let automationId: string;
  before(async () => {
    world = await startExecutions({ MILLRACE_EXECUTIONS_LOOK_MS: '50', MILLRACE_EXECUTIONS_KEEP_ALIVE_MS: '200' });
  });
  after(() => world.stop());
  beforeEach(async () => {
    ada = world.person();
    automationId = await publish(world, { workspace: ada.workspace });
  });
  const control = (person = ada) => world.as(person, ControlServiceService);
  const create = async (rest: Partial<Execution> = {}, id = automationId) =>
    (await clientOf(world, ada).createExecution({ execution: draft(id, rest), requestId: '' })).id;
  const createMany = (count: number, rest: Partial<Execution> = {}) => Promise.all(Array.from({ length: count }, () => create(rest)));
  const get = (id: string) => clientOf(world, ada).getExecution({ id });
  const stateOf = async (id: string) => (await get(id)).state;
  const filter = (rest: Partial<ExecutionFilter> = {}) => ExecutionFilter.fromPartial({ automationId, ...rest });

  describe('cancelled', () => {
    const cancel = (rest: Partial<CancelExecutionsRequest> = {}, person = ada) =>
      control(person).cancelExecutions(CancelExecutionsRequest.fromPartial({ filter: filter(), ...rest } as object));

    it('are counted page by page, and a repeated call does no harm', async () => {
      const ids = await createMany(5);
      await claim(world, ids[0] as string);
      const other = await create({}, await publish(world, { workspace: ada.workspace }));
      const first = await cancel({ pageSize: 3, reason: 'enough' });
      expect(first).to.include({ cancelledCount: 3, endedCount: 0 });
      expect(await cancel({ pageSize: 3, pageToken: first.nextPageToken })).to.deep.equal({
        cancelledCount: 2,
        endedCount: 0,
        nextPageToken: '',
      });
      const states = await Promise.all(ids.map(stateOf));
      expect(states.filter((state) => state === State.CANCELLED)).to.have.length(4);
      expect(await stateOf(ids[0] as string)).to.equal(State.CANCELLING);
      expect(await stateOf(other)).to.equal(State.QUEUED);
      expect(await cancel()).to.deep.equal({ cancelledCount: 1, endedCount: 0, nextPageToken: '' }); // the one that still stops
      await endExecution(world, ids[0] as string, 'CANCELLED');
    });

    it('are those that the filter finds: state, label, time', async () => {
      const [one, two, later] = [
        await create({ labels: { team: 'a?b', 'x"y': '1' } }),
        await create({ labels: { team: 'b' } }),
        await create({ labels: { team: 'a?b' }, scheduleTime: new Date(Date.now() + 3_600_000) }),
      ];
      const byLabel = { labels: ['team=a?b', 'x"y=1'] };
      expect(await cancel({ filter: filter({ ...byLabel, createTimeFrom: new Date(Date.now() + 60_000) }) })).to.include({
        cancelledCount: 0,
      });
      expect(await cancel({ filter: filter(byLabel) })).to.include({ cancelledCount: 1 });
      expect(await Promise.all([one, two, later].map(stateOf))).to.deep.equal([State.CANCELLED, State.QUEUED, State.SCHEDULED]);
      expect(await cancel({ filter: filter({ states: [State.SCHEDULED] }) })).to.include({ cancelledCount: 1 });
      expect(await Promise.all([two, later].map(stateOf))).to.deep.equal([State.QUEUED, State.CANCELLED]);
    });

    it('are never all by mistake, never ended ones, and never those of others', async () => {
      const id = await create();
      expect(await caught(cancel({ filter: ExecutionFilter.fromPartial({}) }))).to.include({ reason: 'NO_FIELDS' });
      expect(await caught(control().cancelExecutions(CancelExecutionsRequest.fromPartial({})))).to.include({ reason: 'FIELD_INVALID' });
      expect(await caught(cancel({ filter: filter({ states: [State.FAILED] }) }))).to.include({ reason: 'FILTER_INVALID' });
      expect(await cancel({}, world.person())).to.include({ cancelledCount: 0 });
      expect(await caught(cancel({}, { ...ada, scopes: ['executions.read'] }))).to.include({ reason: 'PERMISSION_MISSING' });
      expect(await stateOf(id)).to.equal(State.QUEUED);
    });
  });

  it('are repeated once each, and answered again when the call is repeated', async () => {
    const ids = await createMany(4, { input: { n: 1 } });
    for (const id of ids.slice(0, 3)) await endExecution(world, id, 'FAILED');
    const retry = (rest: Partial<RetryExecutionsRequest> = {}) =>
      control().retryExecutions(RetryExecutionsRequest.fromPartial({ filter: filter(), ...rest } as object));
    const first = await retry({ pageSize: 2 });
    const second = await retry({ pageSize: 2, pageToken: first.nextPageToken });
    expect([first.retriedCount, second.retriedCount, second.nextPageToken]).to.deep.equal([2, 1, '']);
    const items = [...first.items, ...second.items];
    expect(items.map(({ executionId }) => executionId)).to.have.members(ids.slice(0, 3));
    for (const { executionId, retryId } of items) expect(await get(retryId)).to.deep.include({ retryOf: executionId, input: { n: 1 } });
    expect((await retry()).items).to.deep.equal(items);
    const rows = await world
      .db('executions')('executions')
      .whereNotNull('retry_of')
      .where({ automation: toBytes('automation', automationId) });
    expect(rows).to.have.length(3);
    await publish(world, { id: automationId, workspace: ada.workspace, version: 2, disabled: true });
    await world.db('executions')('idempotency').delete();
    expect(await retry()).to.deep.include({ retriedCount: 0, refusedCount: 3 });
    expect((await retry()).items[0]).to.include({ retryId: '', reason: 'AUTOMATION_DISABLED' });
  });

  describe('watched', () => {
    interface Watch {
      frames: WatchExecutionsResponse[];
      seen(): string[];
      cursor(): string;
      stop(): Promise<void>;
    }
    const open: Watch[] = [];
    afterEach(async () => {
      for (const one of open.splice(0)) await one.stop();
    });

    function watch(rest: Partial<WatchExecutionsRequest> = {}): Watch {
      const stopped = new AbortController();
      const frames: WatchExecutionsResponse[] = [];
      const running = (async () => {
        const request = WatchExecutionsRequest.fromPartial({ filter: filter(), ...rest } as object);
        for await (const frame of control().watchExecutions(request, { signal: stopped.signal })) frames.push(frame);
      })();
      const one = {
        frames,
        seen: () => frames.flatMap(({ execution }) => (execution ? [`${execution.id} ${NAMES.get(execution.state)}`] : [])),
        cursor: () => frames.at(-1)?.cursor ?? '',
        async stop() {
          stopped.abort();
          await running;
        },
      };
      open.push(one);
      return one;
    }
    const sees = (one: Watch, ...wanted: string[]) => until(`${wanted}`, () => wanted.every((text) => one.seen().includes(text)));

    it('are told when they are open, change, come and end, each change once', async () => {
      const [first, elsewhere] = [await create(), await create({}, await publish(world, { workspace: ada.workspace }))];
      const one = watch();
      await sees(one, `${first} QUEUED`);
      const second = await create();
      await claim(world, first);
      await sees(one, `${first} RUNNING`, `${second} QUEUED`);
      await world.db('executions')('running').update({ progress_fraction: 0.5, progress_message: 'half' });
      await until('the progress', () => one.frames.some(({ execution }) => execution?.progress?.message === 'half'));
      await endExecution(world, first, 'SUCCEEDED', { output: '42', input: '{}' });
      await sees(one, `${first} SUCCEEDED`);
      await until('a sign of life', () => one.frames.at(-1)?.keepAlive);
      expect(one.seen().filter((text) => text.startsWith(second))).to.deep.equal([`${second} QUEUED`]);
      expect(one.seen().filter((text) => text === `${first} SUCCEEDED`)).to.have.length(1);
      expect(one.seen().join()).to.not.include(elsewhere);
      expect(one.frames.findLast(({ execution }) => execution)?.execution).to.include({ input: undefined, output: undefined });
    });

    // Makes it an hour old.
    async function age(id: string): Promise<string> {
      const key = toBytes('execution', id);
      const older = Buffer.from(key);
      older.writeUIntBE(Date.now() - 3_600_000, 0, 6);
      await world.db('executions')('executions').where({ id: key }).update({ id: older });
      await world.db('executions')('ready').where({ execution: key }).update({ execution: older });
      return fromBytes('execution', older);
    }

    it('go on from a cursor: what ended meanwhile is told, though it is old', async () => {
      const ids = await createMany(3);
      const old = await age(ids[0] as string);
      ids[0] = old;
      const one = watch();
      await sees(one, ...ids.map((id) => `${id} QUEUED`));
      await until('a sign of life', () => one.frames.at(-1)?.keepAlive);
      const cursor = one.cursor();
      await one.stop();
      await endExecution(world, old, 'FAILED');
      const fresh = await create();
      const two = watch({ cursor });
      await sees(two, `${old} FAILED`, `${fresh} QUEUED`);
      expect(await caught(collect(control(), 'nonsense'))).to.include({ reason: 'CURSOR_INVALID' });
    });

    it('are told only in the states that are asked for', async () => {
      const [one, two] = [await create(), await create()];
      const watching = watch({ filter: filter({ states: [State.FAILED] }) });
      await until('a sign of life', () => watching.frames.length > 0);
      await endExecution(world, one, 'SUCCEEDED');
      await endExecution(world, two, 'FAILED');
      await sees(watching, `${two} FAILED`);
      expect(watching.seen()).to.deep.equal([`${two} FAILED`]);
    });

    it('are told that the server stops, and where to go on', async () => {
      const id = await create();
      const one = watch();
      await sees(one, `${id} QUEUED`);
      await world.restart();
      await until('the end', () => one.frames.at(-1)?.end);
      expect(one.frames.at(-1)?.end).to.include({ code: 14 });
      expect(one.cursor()).to.not.equal('');
    });
  });
});

const NAMES = new Map<number, string>(Object.entries(State).map(([name, value]) => [value, name]));

async function collect(
  client: { watchExecutions(request: WatchExecutionsRequest): AsyncIterable<unknown> },
  cursor: string,
): Promise<void> {
  for await (const _ of client.watchExecutions(WatchExecutionsRequest.fromPartial({ cursor }))) return;
}
