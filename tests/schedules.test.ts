// Schedules together with executions: what ticks is run once, follows its policy and is followed to its end.
import { type ChildProcess, spawn } from 'node:child_process';
import { expect } from 'chai';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { type Execution, Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionServiceService, ListExecutionsRequest } from '#gen/millrace/executions/v1/execution_service.ts';
import { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import {
  Schedule_Overlap as Overlap,
  type Schedule,
  Schedule_State,
  type ScheduleTick,
  ScheduleTick_State as State,
} from '#gen/millrace/schedules/v1/schedule.ts';
import { CreateScheduleRequest, ScheduleServiceService } from '#gen/millrace/schedules/v1/schedule_service.ts';
import { ListScheduleTicksRequest, ScheduleTickServiceService } from '#gen/millrace/schedules/v1/tick_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId, toBytes } from '#platform/id.ts';
import { freePort } from '../deploy/local/ports.ts';
import { module as executionsModule } from '../services/executions/module.ts';
import { module as schedulesModule } from '../services/schedules/module.ts';
import { type Person, startWorld, until, type World } from './world.ts';

const HOUR = 3_600_000;
const PATIENCE_MS = 25_000;
const modules = [executionsModule, schedulesModule];
const nameOf = (state: State) => Object.entries(State).find(([, value]) => value === state)?.[0];

describe('schedules', function () {
  this.timeout(60_000);
  let world: World; // executions wait in it until they are cancelled: nothing runs them
  let person: Person;
  let schedules: ClientOf<ScheduleServiceService>;
  let ticks: ClientOf<ScheduleTickServiceService>;
  let executions: ClientOf<ExecutionServiceService>;
  let automationId: string;
  const children: ChildProcess[] = [];

  before(async () => {
    world = await startWorld({
      targets: ['executions', 'schedules'],
      modules,
      env: { MILLRACE_GRPC_ADDRESS: `127.0.0.1:${await freePort()}` },
    });
    person = world.person();
    automationId = await automation('def main(when: str = "") -> None: ...');
    connect();
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });
  after(() => world?.stop());

  function connect(address = world.grpcAddress) {
    schedules = world.as(person, ScheduleServiceService, address);
    ticks = world.as(person, ScheduleTickServiceService, address);
    executions = world.as(person, ExecutionServiceService);
  }
  async function automation(source: string): Promise<string> {
    const id = newId('automation');
    const told = {
      automationId: id,
      workspaceId: person.workspace,
      name: 'a',
      version: 1,
      publishedRevision: 1,
      disabled: false,
      deleted: false,
    };
    const revisions = [{ number: 1, spec: AutomationSpec.fromPartial({ source }) }];
    await world.asService('automations', ProjectionServiceService).applyAutomation({ ...told, revisions });
    return id;
  }
  const create = (fields: object = {}): Promise<Schedule> =>
    schedules.createSchedule(
      CreateScheduleRequest.fromPartial({ schedule: { name: 'nightly', automationId, spec: { crons: ['0 * * * *'] }, ...fields } }),
    );
  const run = (id: string, overlap: Overlap = Overlap.OVERLAP_UNSPECIFIED) => schedules.runSchedule({ id, overlap, requestId: '' });
  const ticksOf = async (scheduleId: string): Promise<ScheduleTick[]> =>
    (await ticks.listScheduleTicks(ListScheduleTicksRequest.fromPartial({ scheduleId, pageSize: 200 }))).ticks.reverse();
  const statesOf = async (scheduleId: string) => (await ticksOf(scheduleId)).map(({ state }) => nameOf(state)).join(' ');
  const reach = (scheduleId: string, states: string) =>
    until(states, async () => (await statesOf(scheduleId)) === states, PATIENCE_MS).catch(async () => {
      expect(await statesOf(scheduleId)).to.equal(states);
    });
  const executionsOf = async (scheduleId: string): Promise<Execution[]> =>
    (await executions.listExecutions(ListExecutionsRequest.fromPartial({ pageSize: 200 }))).executions.filter(
      ({ labels }) => labels.schedule === scheduleId,
    );
  const started = (scheduleId: string, index: number) =>
    until('the execution', async () => (await ticksOf(scheduleId))[index]?.executionId);
  const cancel = async (scheduleId: string, index: number) =>
    executions.cancelExecution({ id: await started(scheduleId, index), reason: '', grace: undefined });
  // As if the tick that is next were the one of so many hours ago.
  const rewind = (id: string, hours: number) => {
    const time = new Date((Math.floor(Date.now() / HOUR) - hours) * HOUR);
    return world
      .db('schedules')('schedules')
      .where({ id: toBytes('schedule', id) })
      .update({ tick_time: time, next_time: time }); // prettier-ignore
  };

  it('make an execution of a tick, with input, labels and the tick’s time, for whom it runs, and follow it to its end', async () => {
    const { id } = await create({ input: { when: 'x' }, timeParameter: 'when', labels: { team: 'a' }, priority: 2 });
    await rewind(id, 0);
    const executionId = await started(id, 0);
    const [tick] = await ticksOf(id);
    const time = new Date(Math.floor(Date.now() / HOUR) * HOUR).toISOString();
    expect(tick).to.deep.include({ state: State.RUNNING, reason: '', tickTime: new Date(time), count: 1 });
    const execution = await executions.getExecution({ id: executionId });
    expect(execution).to.deep.include({ automationId, input: { when: time }, priority: 2, creatorId: person.user });
    expect(execution.labels).to.deep.equal({ team: 'a', schedule: id, schedule_time: time });
    await executions.cancelExecution({ id: executionId, reason: '', grace: undefined });
    await reach(id, 'CANCELLED');
    const after = await schedules.getSchedule({ id });
    expect(after.counts).to.include({ started: 1, failed: 0, running: 0 });
    expect(after.recentTicks[0]).to.include({ executionId, state: State.CANCELLED }).and.have.property('endTime').that.is.instanceOf(Date);
  });

  describe('while an execution goes on', () => {
    it('skip', async () => {
      const { id } = await create();
      await run(id);
      expect((await run(id)).state).to.equal(State.SKIPPED);
      await cancel(id, 0);
      await reach(id, 'CANCELLED SKIPPED');
      await run(id);
      await reach(id, 'CANCELLED SKIPPED RUNNING');
    });

    it('buffer one', async () => {
      const { id } = await create({ overlap: Overlap.BUFFER_ONE });
      for (let index = 0; index < 3; index += 1) await run(id);
      await reach(id, 'RUNNING BUFFERED SKIPPED');
      await cancel(id, 0);
      await reach(id, 'CANCELLED RUNNING SKIPPED');
    });

    it('buffer all, in order', async () => {
      const { id } = await create({ overlap: Overlap.BUFFER_ALL });
      for (let index = 0; index < 3; index += 1) await run(id);
      await reach(id, 'RUNNING BUFFERED BUFFERED');
      await cancel(id, 0);
      await reach(id, 'CANCELLED RUNNING BUFFERED');
      await cancel(id, 1);
      await reach(id, 'CANCELLED CANCELLED RUNNING');
      expect(await executionsOf(id)).to.have.length(3);
    });

    it('cancel it and start after its end; the last one of several', async () => {
      const { id } = await create({ overlap: Overlap.CANCEL_OTHER });
      await run(id);
      const first = await started(id, 0);
      await run(id);
      await reach(id, 'CANCELLED RUNNING');
      expect((await executions.getExecution({ id: first })).state).to.equal(Execution_State.CANCELLED);
    });

    it('cancel it and start at once', async () => {
      const { id } = await create({ overlap: Overlap.TERMINATE_OTHER });
      await run(id);
      await started(id, 0);
      expect((await run(id)).state).to.equal(State.STARTING);
      await reach(id, 'CANCELLED RUNNING');
    });

    it('start beside it', async () => {
      const { id } = await create({ overlap: Overlap.ALLOW_ALL });
      for (let index = 0; index < 3; index += 1) await run(id);
      await reach(id, 'RUNNING RUNNING RUNNING');
      expect(new Set((await executionsOf(id)).map((one) => one.id)).size).to.equal(3);
    });

    it('hold what the spec buffered while paused, not what a person asked for', async () => {
      const { id } = await create({ overlap: Overlap.BUFFER_ALL });
      await run(id);
      await rewind(id, 0);
      await until('the tick of the spec', async () => (await ticksOf(id)).length === 2);
      const held = (await ticksOf(id)).find(({ state }) => state === State.BUFFERED)?.id ?? '';
      await schedules.pauseSchedule({ id, reason: '' });
      const asked = await run(id);
      const stateOf = async (tick: string) => nameOf((await ticks.getScheduleTick({ scheduleId: id, id: tick })).state);
      const [first] = (await ticksOf(id)).filter(({ state }) => state === State.RUNNING || state === State.STARTING);
      await executions.cancelExecution({
        id: await until('it', async () => (await ticks.getScheduleTick({ scheduleId: id, id: first?.id ?? '' })).executionId),
        reason: '',
        grace: undefined,
      });
      await until('the one that was asked for', async () => (await stateOf(asked.id)) === 'RUNNING');
      expect(await stateOf(held)).to.equal('BUFFERED');
      await executions.cancelExecution({
        id: (await ticks.getScheduleTick({ scheduleId: id, id: asked.id })).executionId ?? '',
        reason: '',
        grace: undefined,
      });
      await until('its end', async () => (await stateOf(asked.id)) === 'CANCELLED');
      expect(await stateOf(held)).to.equal('BUFFERED');
      await schedules.resumeSchedule({ id });
      await until('the held one', async () => (await stateOf(held)) === 'RUNNING');
    });
  });

  it('say why an execution cannot be made, and pause then if they are told to', async () => {
    const { id } = await create({ automationId: newId('automation'), pauseOnFailure: true });
    await rewind(id, 0);
    const paused = await until('the pause', async () => {
      const found = await schedules.getSchedule({ id });
      return found.state === Schedule_State.PAUSED ? found : undefined;
    });
    expect(paused.recentTicks[0]).to.include({ state: State.FAILED, executionId: undefined });
    expect(paused.recentTicks[0]?.reason).to.match(/there is no automation/);
    expect(paused.pauseReason).to.match(/^tick tik_\w+ failed: there is no automation/);
    expect(paused.counts).to.include({ failed: 1, started: 0 });
    expect(paused.version).to.equal(2);
    const lenient = await create({ automationId: newId('automation') });
    await run(lenient.id);
    await reach(lenient.id, 'FAILED');
    expect((await schedules.getSchedule({ id: lenient.id })).state).to.equal(Schedule_State.ACTIVE);
  });

  it('hear of the end of an execution by its event', async () => {
    const { id } = await create();
    await run(id);
    const executionId = await started(id, 0);
    const later = world.db('schedules').raw('utc_timestamp(6) + interval 1 day'); // they do not ask by themselves
    await world
      .db('schedules')('schedule_ticks')
      .where({ execution: toBytes('execution', executionId) })
      .update({ check_time: later }); // prettier-ignore
    await executions.cancelExecution({ id: executionId, reason: '', grace: undefined });
    await reach(id, 'CANCELLED');
  });

  it('do not ask again for an execution whose key may be forgotten', async () => {
    const { id } = await create();
    const [tick] = [await run(id)];
    await started(id, 0);
    const row = () =>
      world
        .db('schedules')('schedule_ticks')
        .where({ id: toBytes('tick', tick.id) });
    const long = world.db('schedules').raw('utc_timestamp(6) - interval 24 hour');
    const now = world.db('schedules').raw('utc_timestamp(6)');
    await row().update({ state: 'STARTING', execution: null, try_time: long, check_time: now });
    await reach(id, 'FAILED');
    expect((await ticksOf(id))[0]?.reason).to.match(/not known, and it is too late to ask again/);
    expect(await executionsOf(id)).to.have.length(1);
  });

  it('find the end of an execution whose event is lost', async () => {
    const { id } = await create();
    await run(id);
    const execution = toBytes('execution', await started(id, 0));
    await world.db('executions')('outbox').where('type', 'execution.ended').delete();
    const row = world.db('schedules')('schedule_ticks').where({ execution });
    await world.db('executions')('executions').where({ id: execution }).update({ state: 'CANCELLED', end_time: new Date() }); // without an event
    await row.clone().update({ check_time: world.db('schedules').raw('utc_timestamp(6)') });
    await reach(id, 'CANCELLED');
    const gone = await create();
    await run(gone.id);
    const lost = toBytes('execution', await started(gone.id, 0));
    await world.db('executions')('executions').where({ id: lost }).delete();
    await world
      .db('schedules')('schedule_ticks')
      .where({ execution: lost })
      .update({ check_time: world.db('schedules').raw('utc_timestamp(6)') }); // prettier-ignore
    await reach(gone.id, 'FAILED');
    expect((await ticksOf(gone.id))[0]?.reason).to.match(/no longer kept/);
  });

  it('do not tick twice for one time, even if they are set back to it', async () => {
    const { id } = await create({ overlap: Overlap.ALLOW_ALL, catchUpWindow: { seconds: 86_400 } });
    await rewind(id, 2);
    await reach(id, 'RUNNING RUNNING RUNNING');
    await rewind(id, 3);
    await reach(id, 'RUNNING RUNNING RUNNING RUNNING'); // one that is new
    expect(new Set((await executionsOf(id)).map(({ labels }) => labels.schedule_time)).size).to.equal(4);
    expect(await executionsOf(id)).to.have.length(4);
    const late = await create({ catchUpWindow: { seconds: 10 } });
    for (let time = 0; time < 2; time += 1) {
      await rewind(late.id, 5);
      await until(
        'it to have gone on',
        async () => ((await schedules.getSchedule({ id: late.id })).nextTimes[0]?.getTime() ?? 0) > Date.now(),
      );
    }
    expect((await ticksOf(late.id)).map(({ count }) => count)).to.deep.equal([6]);
  });

  describe('in several processes', function () {
    this.timeout(120_000);
    async function process(settings: Record<string, string> = {}): Promise<{ address: string; exited: Promise<unknown> }> {
      const [address, admin] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
      const env = {
        ...world.env,
        MILLRACE_EXECUTIONS_URL: world.grpcAddress,
        MILLRACE_GRPC_ADDRESS: address,
        MILLRACE_ADMIN_ADDRESS: admin,
      };
      const child = spawn(globalThis.process.execPath, ['services/schedules/process.fixture.ts'], {
        env: { ...env, ...settings, MILLRACE_LOG_LEVEL: 'error' },
        stdio: ['ignore', 'inherit', 'inherit'],
      });
      children.push(child);
      const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
      await until(
        'the process',
        () =>
          fetch(`http://${admin}/readyz`).then(
            (answer) => answer.ok,
            () => false,
          ),
        30_000,
      ); // prettier-ignore
      return { address, exited };
    }

    it('make one execution of each tick', async () => {
      await Promise.all([process(), process()]);
      const made = await Promise.all(
        Array.from({ length: 8 }, () => create({ overlap: Overlap.ALLOW_ALL, catchUpWindow: { seconds: 86_400 } })),
      );
      const ids = made.map(({ id }) => toBytes('schedule', id));
      const time = new Date((Math.floor(Date.now() / HOUR) - 4) * HOUR);
      await world.db('schedules')('schedules').whereIn('id', ids).update({ tick_time: time, next_time: time });
      for (const { id } of made) await reach(id, Array(5).fill('RUNNING').join(' '));
      for (const { id } of made) {
        const times = (await executionsOf(id)).map(({ labels }) => labels.schedule_time);
        expect(times.sort()).to.deep.equal([0, 1, 2, 3, 4].map((hours) => new Date(time.getTime() + hours * HOUR).toISOString()));
      }
    });

    it('lose and double no second while they are killed again and again', async () => {
      await world.restart(['executions']);
      const everySecond = { intervals: [{ every: { seconds: 1 } }] };
      let id = '';
      for (let kills = 0; kills < 2; kills += 1) {
        const { address, exited } = await process();
        connect(address);
        id ||= (await create({ overlap: Overlap.ALLOW_ALL, spec: everySecond, catchUpWindow: { seconds: 3600 } })).id;
        const before = (await ticksOf(id)).length;
        await until('more ticks', async () => (await ticksOf(id)).length > before + 1, PATIENCE_MS);
        children.at(-1)?.kill('SIGKILL');
        await exited;
        const overdue = world.db('schedules').raw('utc_timestamp(6) - interval 2 second');
        await until('ticks to be late', () =>
          world
            .db('schedules')('schedules')
            .where({ id: toBytes('schedule', id) })
            .where('next_time', '<', overdue)
            .first('id'),
        ); // prettier-ignore
      }
      // The calls of those that were killed would be waited for.
      await world
        .db('schedules')('schedule_ticks')
        .where({ state: 'STARTING' })
        .update({ check_time: world.db('schedules').raw('utc_timestamp(6)') }); // prettier-ignore
      await world.restart();
      connect();
      await until(
        'it to catch up',
        async () => ((await schedules.getSchedule({ id })).nextTimes[0]?.getTime() ?? 0) > Date.now(),
        PATIENCE_MS,
      );
      await schedules.pauseSchedule({ id, reason: '' });
      await until('all executions', async () => /^(RUNNING ?)+$/.test(await statesOf(id)), PATIENCE_MS);
      const seconds = (await ticksOf(id)).map(({ tickTime }) => (tickTime?.getTime() ?? 0) / 1000);
      expect(seconds).to.deep.equal(seconds.map((_, index) => (seconds[0] ?? 0) + index));
      const made = (await executionsOf(id)).map(({ labels }) => new Date(labels.schedule_time ?? '').getTime() / 1000);
      expect(made.sort()).to.deep.equal(seconds);
    });

    for (const place of ['schedules.claimed', 'schedules.start', 'schedules.started']) {
      it(`make one execution of a tick when one is killed at ${place}`, async () => {
        await world.restart(['executions']);
        const { address, exited } = await process({ MILLRACE_FAILPOINT: `${place}:exit` });
        connect(address);
        const { id } = await create();
        await rewind(id, 0);
        expect(await exited).to.equal('SIGKILL');
        const row = await world
          .db('schedules')('schedule_ticks')
          .where({ schedule: toBytes('schedule', id) })
          .first(); // prettier-ignore
        expect(row).to.include({ state: 'STARTING', execution: null });
        // Its call would be waited for.
        await world
          .db('schedules')('schedule_ticks')
          .where({ id: row.id })
          .update({ check_time: world.db('schedules').raw('utc_timestamp(6)') }); // prettier-ignore
        await world.restart();
        connect();
        await reach(id, 'RUNNING');
        const found = await executionsOf(id);
        expect(found).to.have.length(1);
        expect((await ticksOf(id))[0]?.executionId).to.equal(found[0]?.id);
        expect((await schedules.getSchedule({ id })).counts).to.include({ started: 1 });
      });
    }
  });
});
