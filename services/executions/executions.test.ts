import { expect } from 'chai';
import { Attempt_State as AttemptState, type Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { ListExecutionsRequest, type WatchExecutionResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import { RegisterServerRequest, ServerServiceService } from '#gen/millrace/executions/v1/server_service.ts';
import { type Bus, openBus } from '#platform/bus.ts';
import { openPool } from '#platform/db.ts';
import { fromBytes, newBytes, newId, toBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { type Person, until, type World } from '../../tests/world.ts';
import * as notices from './engine/notices.ts';
import {
  caught,
  claim,
  clientOf,
  draft,
  endAttempt,
  endExecution,
  lines,
  publish,
  startAttempt,
  startExecutions,
  writeLines,
} from './fixture.test.ts';
import { find } from './reconcile-system.ts';

describe('executions', () => {
  // Here nobody looks without having been told to.
  describe('with notices alone', () => {
    let world: World;
    let bus: Bus;
    before(async () => {
      world = await startExecutions({ MILLRACE_EXECUTIONS_LOOK_MS: '60000', MILLRACE_EXECUTIONS_KEEP_ALIVE_MS: '60000' });
      bus = openBus(world.config, openLog('silent'));
      await bus.connection();
    });
    after(async () => {
      await bus.stop();
      await world.stop();
    });

    it('are answered and shown as soon as they have ended', async () => {
      const ada = world.person();
      const automationId = await publish(world, { workspace: ada.workspace });
      const executions = clientOf(world, ada);
      const asked = executions.runAndWait({ execution: draft(automationId), wait: { seconds: 300, nanos: 0 }, requestId: '' });
      const row = await until('the execution', () => world.db('executions')('executions').first());
      const id = fromBytes('execution', row.id);
      const frames: WatchExecutionResponse[] = [];
      const watched = (async () => {
        for await (const frame of executions.watchExecution({ id })) frames.push(frame);
      })();
      await until('the first frame', () => frames.length === 1);
      await endExecution(world, id, 'SUCCEEDED', { output: '42' });
      bus.notify(notices.changed(id));
      expect(await asked).to.deep.include({ id, state: State.SUCCEEDED, output: 42 });
      await watched;
      expect(frames.at(-1)?.end?.state).to.equal(State.SUCCEEDED);
    });
  });

  let world: World;
  let bus: Bus;
  let ada: Person;
  let executions: ReturnType<typeof clientOf>;
  let automationId: string;
  const db = () => world.db('executions');

  before(async () => {
    world = await startExecutions();
    bus = openBus(world.config, openLog('silent'));
    await bus.connection();
  });
  after(async () => {
    const pool = openPool(world.config, `${world.config.databasePrefix}_executions`, 1);
    const connection = await pool.getConnection();
    const found = await find(connection);
    connection.release();
    await pool.end();
    await bus.stop();
    await world.stop();
    expect(found).to.deep.equal({ places: [], limits: [] }); // whatever the tests did, no promise was broken
  });
  beforeEach(async () => {
    ada = world.person();
    executions = clientOf(world, ada);
    automationId = await publish(world, { workspace: ada.workspace });
  });

  const create = (rest: Partial<Execution> = {}, requestId = '') =>
    executions.createExecution({ execution: draft(automationId, rest), requestId });
  const later = () => new Date(Date.now() + 3_600_000);
  const soon = (ms: number) => new Date(Date.now() + ms);

  // What the dispatcher does when an attempt failed and another is allowed.
  async function retrying(id: string, due: Date): Promise<void> {
    const execution = toBytes('execution', id);
    await claim(world, id);
    await db().transaction(async (tx) => {
      const { lane, priority, limit_key, attempt, losses, expire_time } = await tx('running').where({ execution }).first();
      await tx('running').where({ execution }).delete();
      await tx('timers').insert({
        due_time: due,
        kind: 'RETRY',
        execution,
        lane,
        priority,
        limit_key,
        attempt: attempt + 1,
        losses,
        expire_time,
      });
      await tx('executions').where({ id: execution }).update({ state: 'RETRYING', version: 2, attempt_count: 1 });
    });
  }

  describe('as they are read', () => {
    it('are where the hot tables say', async () => {
      const [queued, scheduled, running, cancelling, waiting] = await Promise.all([
        create(),
        create({ scheduleTime: later() }),
        create(),
        create(),
        create(),
      ]);
      const due = soon(60_000);
      await claim(world, running.id, { progress_fraction: 0.25, progress_message: 'a quarter' });
      await claim(world, cancelling.id, { state: 'CANCELLING' });
      await retrying(waiting.id, due);
      const get = (id: string) => executions.getExecution({ id });
      expect(await get(queued.id)).to.include({ state: State.QUEUED, waitingReason: 'NO_SERVER' });
      expect(await get(scheduled.id)).to.include({ state: State.SCHEDULED, waitingReason: '' });
      expect(await get(running.id)).to.deep.include({ state: State.RUNNING, progress: { fraction: 0.25, message: 'a quarter' } });
      expect(await get(cancelling.id)).to.deep.include({ state: State.CANCELLING, progress: undefined });
      expect(await get(waiting.id)).to.deep.include({ state: State.RETRYING, nextAttemptTime: due, attemptCount: 1 });
    });

    it('show output and error once they have ended, also large ones', async () => {
      const [small, large, failed] = await Promise.all([create(), create(), create()]);
      const error = { type: 'ValueError', message: 'no', traceback: 'line 1', retryable: false };
      await endExecution(world, small.id, 'SUCCEEDED', { output: JSON.stringify({ n: [1, null] }) });
      await endExecution(world, large.id, 'SUCCEEDED');
      await db()('results').insert({ execution: toBytes('execution', large.id), kind: 'OUTPUT', body: JSON.stringify('x'.repeat(50_000)) });
      await endExecution(world, failed.id, 'FAILED', { error: JSON.stringify(error) });
      expect(await executions.getExecution({ id: small.id })).to.deep.include({
        state: State.SUCCEEDED,
        output: { n: [1, null] },
        version: 2,
      });
      expect(await executions.getExecutionResult({ id: large.id })).to.deep.include({ state: State.SUCCEEDED, output: 'x'.repeat(50_000) });
      expect(await executions.getExecutionResult({ id: failed.id })).to.deep.include({
        executionId: failed.id,
        state: State.FAILED,
        error,
      });
      const open = await create();
      expect(await caught(executions.getExecutionResult({ id: open.id }))).to.include({ reason: 'EXECUTION_NOT_ENDED', code: 9 });
    });

    it('are nobody else’s, and their ids are checked', async () => {
      const { id } = await create();
      const stranger = clientOf(world, world.person());
      const asks = [
        () => stranger.getExecution({ id }),
        () => stranger.cancelExecution({ id, reason: '' }),
        () => stranger.retryExecution({ id, requestId: '' }),
        () => stranger.getExecutionResult({ id }),
        () => stranger.listAttempts({ id }),
        () => first(stranger.watchExecution({ id })),
        () => executions.getExecution({ id: newId('execution') }),
      ];
      for (const ask of asks) expect(await caught(ask())).to.include({ reason: 'RESOURCE_NOT_FOUND' });
      expect(await caught(executions.getExecution({ id: newId('task') }))).to.include({ reason: 'ID_INVALID' });
      const viewer = clientOf(world, { ...ada, scopes: ['executions.read'] });
      expect((await viewer.getExecution({ id })).id).to.equal(id);
      expect(await caught(viewer.cancelExecution({ id, reason: '' }))).to.include({ reason: 'PERMISSION_MISSING' });
    });

    it('say why they wait for a server', async () => {
      const { id } = await create();
      const servers = world.asService('runner', ServerServiceService);
      const server = { serverId: newId('server'), endpoint: '127.0.0.1:7000', slots: 4, sandboxTier: 1, minimumTier: 2, protocol: 1 };
      const register = (rest = {}) => servers.registerServer(RegisterServerRequest.fromPartial({ ...server, ...rest }));
      const reason = async () => (await executions.getExecution({ id })).waitingReason;
      expect(await reason()).to.equal('NO_SERVER');
      expect(await register()).to.deep.equal({ againAfterMs: 10_000 });
      await until('SANDBOX_UNAVAILABLE', async () => (await reason()) === 'SANDBOX_UNAVAILABLE');
      await register({ sandboxTier: 2 });
      await until('NO_DISPATCHER', async () => (await reason()) === 'NO_DISPATCHER');
      const dispatcher = { id: newBytes(), lease_until: db().raw('NOW(6) + INTERVAL 1 HOUR') };
      await db()('dispatchers').insert(dispatcher);
      await until('no reason', async () => (await reason()) === '');
      await db()('dispatchers').where({ id: dispatcher.id }).delete();
      await register({ sandboxTier: 2, draining: true });
      await until('NO_SERVER', async () => (await reason()) === 'NO_SERVER');
      expect(await caught(register({ endpoint: 'nowhere' }))).to.include({ reason: 'FIELD_INVALID' });
      await db()('servers')
        .where({ id: toBytes('server', server.serverId) })
        .update({ state: 'LOST', lease_until: '2020-01-01', owner_epoch: 7 });
      await register();
      const row = await db()('servers')
        .where({ id: toBytes('server', server.serverId) })
        .first();
      expect(row).to.include({ state: 'LIVE', owner_epoch: 7, slots: 4 });
      expect(row.lease_until.getTime() - row.seen_time.getTime()).to.equal(10_000); // short, until it is renewed
    });

    it('have attempts with what they used', async () => {
      const { id } = await create();
      await claim(world, id);
      expect(await executions.listAttempts({ id })).to.deep.equal({ attempts: [] });
      await startAttempt(world, id, 1);
      await writeLines(world, id, 1, lines(0, 3));
      await endAttempt(world, id, 1, 'FAILED', undefined);
      const error = { type: 'ValueError', message: 'no', traceback: '', retryable: true };
      const used = { error: JSON.stringify(error), cpu_seconds: 0.5, peak_memory_kib: 1024, log_bytes: 20 };
      await db()('attempts')
        .where({ execution: toBytes('execution', id) })
        .update(used);
      await startAttempt(world, id, 2);
      const { attempts } = await executions.listAttempts({ id });
      expect(attempts).to.have.length(2);
      expect(attempts[0]).to.deep.include({
        number: 1,
        state: AttemptState.FAILED,
        sandboxTier: 2,
        isolation: 1,
        limits: ['memory:cgroup'],
        logCount: 3,
        error,
      });
      expect(attempts[0]?.usage).to.deep.equal({ cpuSeconds: 0.5, peakMemoryKib: 1024, logBytes: 20 });
      expect(attempts[1]).to.deep.include({ number: 2, state: AttemptState.RUNNING, endTime: undefined, usage: undefined, logCount: 0 });
    });
  });

  describe('in a list', () => {
    const list = (rest: Partial<ListExecutionsRequest> = {}) => executions.listExecutions(ListExecutionsRequest.fromPartial(rest));
    const idsOf = (found: { executions: Execution[] }): string[] => found.executions.map(({ id }) => id);

    it('come newest first, in pages, without input and output', async () => {
      const made: string[] = [];
      for (let n = 0; n < 7; n += 1) made.unshift((await create({ input: { n } })).id);
      const pages: string[][] = [];
      for (let pageToken = ''; ; ) {
        const page = await list({ pageSize: 3, pageToken });
        pages.push(idsOf(page));
        expect(page.executions.every(({ input }) => input === undefined)).to.equal(true);
        pageToken = page.nextPageToken;
        if (pageToken === '') break;
      }
      expect(pages.map(({ length }) => length)).to.deep.equal([3, 3, 1]);
      expect(pages.flat()).to.deep.equal(made);
      const { nextPageToken } = await list({ pageSize: 3 });
      expect(await caught(list({ pageToken: nextPageToken, automationId }))).to.include({ reason: 'PAGE_TOKEN_INVALID' });
      expect(await caught(list({ pageToken: 'x' }))).to.include({ reason: 'PAGE_TOKEN_INVALID' });
    });

    it('are chosen by where they stand', async () => {
      const byState: [State, string][] = [];
      const add = async (state: State, rest: Partial<Execution>, then: (id: string) => Promise<unknown>) => {
        const { id } = await create(rest);
        await then(id);
        byState.push([state, id]);
      };
      for (let round = 0; round < 2; round += 1) {
        await add(State.QUEUED, {}, async () => undefined);
        await add(State.SCHEDULED, { scheduleTime: later() }, async () => undefined);
        await add(State.RUNNING, {}, (id) => claim(world, id));
        await add(State.CANCELLING, {}, (id) => claim(world, id, { state: 'CANCELLING' }));
        await add(State.RETRYING, {}, (id) => retrying(id, later()));
        for (const state of ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'] as const) {
          await add(State[state], {}, (id) => endExecution(world, id, state));
        }
      }
      const of = (...states: State[]) =>
        byState
          .filter(([state]) => states.includes(state))
          .map(([, id]) => id)
          .reverse();
      for (const [state] of byState) expect(idsOf(await list({ states: [state] })), String(state)).to.deep.equal(of(state));
      const some = [State.QUEUED, State.FAILED, State.RUNNING, State.RETRYING];
      const first = await list({ states: some, pageSize: 5 });
      const second = await list({ states: some, pageSize: 5, pageToken: first.nextPageToken });
      expect([...idsOf(first), ...idsOf(second)]).to.deep.equal(of(...some));
      const shown = (await list()).executions.map(({ id, state }) => `${id} ${state}`);
      expect(shown).to.deep.equal(byState.map(([state, id]) => `${id} ${state}`).reverse());
    });

    it('are chosen by automation and time', async () => {
      const other = await publish(world, { workspace: ada.workspace });
      const one = await create();
      const two = await executions.createExecution({ execution: draft(other), requestId: '' });
      expect(idsOf(await list({ automationId: other }))).to.deep.equal([two.id]);
      expect(idsOf(await list({ automationId: other, states: [State.QUEUED] }))).to.deep.equal([two.id]);
      const time = two.createTime as Date;
      expect(idsOf(await list({ createTimeFrom: time }))).to.include(two.id);
      expect(idsOf(await list({ createTimeTo: time }))).to.not.include(two.id);
      expect(idsOf(await list({ createTimeTo: new Date(time.getTime() + 1) }))).to.deep.equal([two.id, one.id]);
      expect(idsOf(await list({ createTimeFrom: new Date(time.getTime() + 1) }))).to.deep.equal([]);
    });
  });

  describe('that are cancelled', () => {
    const cancel = (id: string, reason = 'enough') => executions.cancelExecution({ id, reason });

    it('end at once from every state in which they wait', async () => {
      const [queued, scheduled, again] = await Promise.all([create(), create({ scheduleTime: later() }), create()]);
      await retrying(again.id, later());
      for (const { id } of [queued, scheduled, again]) {
        const ended = await cancel(id);
        expect(ended).to.include({ state: State.CANCELLED, attemptCount: id === again.id ? 1 : 0 });
        expect(ended.endTime).to.be.instanceOf(Date);
        expect(
          (
            await db()('executions')
              .where({ id: toBytes('execution', id) })
              .first()
          ).cancel_reason,
        ).to.equal('enough');
        expect(await cancel(id, 'again')).to.deep.equal(ended);
      }
    });

    it('are told to stop when they run, once, and their server is told', async () => {
      const { id } = await create();
      const server = newBytes();
      await claim(world, id, { server });
      const told: string[] = [];
      const stops = [notices.cancel(fromBytes('server', server)), notices.changed(id)].map((subject) =>
        bus.onNotice(subject, () => told.push(subject)),
      );
      await (await bus.connection()).flush();
      expect(await cancel(id)).to.include({ state: State.CANCELLING });
      await until('both notices', () => told.length === 2);
      expect(await cancel(id)).to.include({ state: State.CANCELLING });
      expect(told).to.have.length(2);
      for (const stop of stops) stop();
    });

    it('are refused when they have ended otherwise', async () => {
      const { id } = await create();
      await endExecution(world, id, 'SUCCEEDED');
      expect(await caught(cancel(id))).to.include({ reason: 'EXECUTION_ENDED', code: 9 });
    });

    it('end once however many cancel them while they are claimed', async () => {
      const made = await Promise.all(Array.from({ length: 20 }, () => create()));
      const outcomes = await Promise.all(
        made.flatMap(({ id }) => [
          cancel(id).then(({ state }) => state),
          claim(world, id).then(
            () => undefined,
            () => undefined,
          ),
          cancel(id).then(({ state }) => state),
        ]),
      );
      for (const state of outcomes) if (state !== undefined) expect([State.CANCELLED, State.CANCELLING]).to.include(state);
      for (const { id } of made) expect((await executions.getExecution({ id })).version).to.be.at.most(2);
    });
  });

  it('that were asked for before the server stops are accepted and answered', async () => {
    await create();
    const asked = Array.from({ length: 700 }, () => create().catch((error) => error));
    const rows = () => db()('executions').where({ automation: toBytes('automation', automationId) });
    await until('the first commit', async () => (await rows()).length > 1);
    await world.restart();
    const outcomes = await Promise.all(asked);
    const refused = outcomes.filter((outcome) => 'reason' in outcome);
    for (const fault of refused) expect(fault.message).to.include('No connection established'); // it never came
    expect(await rows()).to.have.length(outcomes.length - refused.length + 1);
  });

  it('that have ended are run again with the same revision and input, as new ones', async () => {
    const made = await create({ input: { n: 'x'.repeat(20_000) }, labels: { a: 'b' }, priority: 1 });
    expect(await caught(executions.retryExecution({ id: made.id, requestId: '' }))).to.include({ reason: 'EXECUTION_NOT_ENDED' });
    await endExecution(world, made.id, 'FAILED');
    await publish(world, { id: automationId, workspace: ada.workspace, version: 2, publishedRevision: 2, specs: [{}, {}] });
    const again = await executions.retryExecution({ id: made.id, requestId: 'again' });
    const { input, labels, priority, automationId: automation } = made;
    expect(again).to.deep.include({
      input,
      labels,
      priority,
      automationId: automation,
      revision: 1,
      retryOf: made.id,
      state: State.QUEUED,
    });
    expect(again.id).to.not.equal(made.id);
    expect((await executions.retryExecution({ id: made.id, requestId: 'again' })).id).to.equal(again.id);
  });

  describe('that are waited for', () => {
    it('are answered without any notice, too', async () => {
      const asked = executions.runAndWait({ execution: draft(automationId), wait: { seconds: 20, nanos: 0 }, requestId: '' });
      const row = await until('the execution', () =>
        db()('executions')
          .where({ automation: toBytes('automation', automationId) })
          .first(),
      );
      await endExecution(world, fromBytes('execution', row.id), 'CANCELLED');
      expect((await asked).state).to.equal(State.CANCELLED);
    });

    it('are answered as they are when the time is up, by wait or by the deadline of the call', async () => {
      expect(
        (await executions.runAndWait({ execution: draft(automationId), wait: { seconds: 0, nanos: 1e6 }, requestId: '' })).state,
      ).to.equal(State.QUEUED);
      const short = { execution: draft(automationId), wait: { seconds: 60, nanos: 0 }, requestId: '' };
      expect((await executions.runAndWait(short, { deadlineMs: 1000 })).state).to.equal(State.QUEUED);
    });

    it('are answered as they are when the server stops', async () => {
      const asked = executions.runAndWait({ execution: draft(automationId), wait: { seconds: 60, nanos: 0 }, requestId: '' });
      await until('the execution', () =>
        db()('executions')
          .where({ automation: toBytes('automation', automationId) })
          .first(),
      );
      await world.restart();
      expect((await asked).state).to.equal(State.QUEUED);
    });

    it('are one execution for one key', async () => {
      const ask = () => executions.runAndWait({ execution: draft(automationId), wait: { seconds: 0, nanos: 1e6 }, requestId: 'k' });
      const [one, two] = await Promise.all([ask(), ask()]);
      expect(one.id).to.equal(two.id);
    });
  });

  describe('that are watched', () => {
    function watcher(id: string) {
      const frames: WatchExecutionResponse[] = [];
      const done = (async () => {
        for await (const frame of executions.watchExecution({ id })) frames.push(frame);
      })();
      return { frames, done };
    }

    it('are shown after each change, without their input, until they have ended', async () => {
      const { id } = await create({ input: { a: 1 } });
      const { frames, done } = watcher(id);
      const change = async (work: () => Promise<unknown>, seen: (execution: Execution) => boolean) => {
        await work();
        bus.notify(notices.changed(id));
        await until('the change', () => frames.at(-1)?.execution && seen(frames.at(-1)?.execution as Execution));
      };
      await until('the first frame', () => frames.length === 1);
      await change(
        () => claim(world, id),
        ({ state }) => state === State.RUNNING,
      );
      const execution = toBytes('execution', id);
      await change(
        () => db()('running').where({ execution }).update({ progress_fraction: 0.5 }),
        ({ progress }) => progress?.fraction === 0.5,
      );
      bus.notify(notices.changed(id)); // nothing has changed
      await endExecution(world, id, 'SUCCEEDED', { output: '1' });
      bus.notify(notices.changed(id));
      await done;
      expect(frames.map(({ execution: shown }) => shown?.state)).to.deep.equal([
        State.QUEUED,
        State.RUNNING,
        State.RUNNING,
        State.SUCCEEDED,
        undefined,
      ]);
      expect(frames.every(({ execution: shown }) => shown?.input === undefined)).to.equal(true);
      expect(frames.at(-1)?.end).to.deep.equal({ code: 0, message: '', state: State.SUCCEEDED });
      const after = watcher(id);
      await after.done;
      expect(after.frames).to.deep.equal(frames.slice(-2));
    });
  });
});

async function first<T>(stream: AsyncIterable<T>): Promise<T | undefined> {
  for await (const frame of stream) return frame;
  return undefined;
}
