import { status } from '@grpc/grpc-js';
import { jetstream } from '@nats-io/jetstream';
import { headers as natsHeaders } from '@nats-io/transport-node';
import { expect } from 'chai';
import {
  Schedule_Overlap as Overlap,
  Schedule,
  Schedule_State as State,
  ScheduleTick_State as TickState,
} from '#gen/millrace/schedules/v1/schedule.ts';
import { ScheduleEvent } from '#gen/millrace/schedules/v1/schedule_event.ts';
import {
  CreateScheduleRequest,
  ListSchedulesRequest,
  ListScheduleTimesRequest,
  PreviewScheduleTimesRequest,
  ScheduleServiceService,
} from '#gen/millrace/schedules/v1/schedule_service.ts';
import { ListScheduleTicksRequest, ScheduleTickServiceService } from '#gen/millrace/schedules/v1/tick_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { newId, toBytes } from '#platform/id.ts';
import { type Listener, listen } from '../../tests/events.ts';
import { refused } from '../../tests/refusal.ts';
import { type Person, startWorld, until, type World } from '../../tests/world.ts';
import { module } from './module.ts';

const HOURLY = { crons: ['0 * * * *'] };
const HOUR = 3_600_000;

describe('ScheduleService', () => {
  let world: World;
  let person: Person;
  let service: ClientOf<ScheduleServiceService>;
  let tickService: ClientOf<ScheduleTickServiceService>;
  let published: Listener<ScheduleEvent>;

  before(async () => {
    const env = { MILLRACE_EXECUTIONS_URL: '127.0.0.1:1', MILLRACE_SCHEDULES_MAX: '3', MILLRACE_SCHEDULES_LEAST_SECONDS: '10' };
    world = await startWorld({ targets: ['schedules'], modules: [module], env });
    published = await listen(world, 'schedules', ScheduleEvent.decode);
  });
  after(async () => {
    await published?.stop();
    await world?.stop();
  });
  beforeEach(() => {
    person = world.person();
    service = world.as(person, ScheduleServiceService);
    tickService = world.as(person, ScheduleTickServiceService);
  });

  const create = (fields: object = {}, requestId = '', by = service): Promise<Schedule> =>
    by.createSchedule(
      CreateScheduleRequest.fromPartial({
        schedule: { name: 'nightly', automationId: newId('automation'), spec: HOURLY, ...fields },
        requestId,
      }),
    );
  const update = (id: string, fields: object, updateMask?: string[], by = service) =>
    by.updateSchedule({ id, schedule: Schedule.fromPartial(fields), updateMask });
  const list = (fields: object = {}) => service.listSchedules(ListSchedulesRequest.fromPartial(fields));
  const ticks = async (scheduleId: string, fields: object = {}) =>
    (await tickService.listScheduleTicks(ListScheduleTicksRequest.fromPartial({ scheduleId, ...fields }))).ticks;
  const run = (id: string, requestId = '', overlap: Overlap = Overlap.OVERLAP_UNSPECIFIED) =>
    service.runSchedule({ id, overlap, requestId });
  // As if the tick that is next were so long ago.
  const rewind = (id: string, ms: number) => {
    const time = new Date(Math.floor((Date.now() - ms) / HOUR) * HOUR);
    return world
      .db('schedules')('schedules')
      .where({ id: toBytes('schedule', id) })
      .update({ tick_time: time, next_time: time }); // prettier-ignore
  };

  it('makes a schedule with its defaults and answers it', async () => {
    const made = await create({ input: { a: [1, null] }, labels: { team: 'x' }, priority: 0, timeParameter: 'when' });
    expect(made).to.deep.include({
      state: State.ACTIVE,
      overlap: Overlap.SKIP,
      catchUpWindow: { seconds: 3600, nanos: 0 },
      pauseOnFailure: false,
      creatorId: person.user,
      runAsId: person.user,
      input: { a: [1, null] },
      labels: { team: 'x' },
      priority: 0,
      version: 1,
    });
    const next = Math.ceil(Date.now() / HOUR) * HOUR;
    expect(made.nextTimes.map((time) => time.getTime() - next)).to.deep.equal([0, 1, 2, 3, 4].map((hours) => hours * HOUR));
    expect(await service.getSchedule({ id: made.id })).to.deep.equal(made);
  });

  describe('refuses', () => {
    it('what cannot be used, naming the field', async () => {
      for (const [fields, field] of [
        [{ name: ' ' }, 'schedule.name'],
        [{ name: 'x'.repeat(201) }, 'schedule.name'],
        [{ automationId: '' }, 'schedule.automationId'],
        [{ automationId: newId('user') }, 'schedule.automationId'],
        [{ spec: undefined }, 'schedule.spec'],
        [{ spec: { crons: ['61 * * * *'] } }, 'schedule.spec.crons.0'],
        [{ spec: { crons: [''] } }, 'schedule.spec.crons.0'],
        [{ spec: { ...HOURLY, timeZone: 'Nowhere' } }, 'schedule.spec.timeZone'],
        [{ spec: { ...HOURLY, excludeDates: ['Christmas'] } }, 'schedule.spec.excludeDates.0'],
        [{ spec: { intervals: [{}] } }, 'schedule.spec.intervals.0.every'],
        [{ spec: { crons: ['* * * * * *'] } }, 'schedule.spec'],
        [{ catchUpWindow: { seconds: 5 } }, 'schedule.catchUpWindow'],
        [{ timeParameter: 'a b' }, 'schedule.timeParameter'],
        [{ overlap: 9 }, 'schedule.overlap'],
      ] as const) {
        const fault = await refused(create(fields));
        expect(fault.code, JSON.stringify(fields)).to.equal(status.INVALID_ARGUMENT);
        expect(fault.violations[0]?.field, JSON.stringify(fields)).to.equal(field);
      }
    });

    it('who may only read, and who may not run automations', async () => {
      const made = await create();
      const reader = world.as({ ...person, scopes: ['schedules.read'] }, ScheduleServiceService);
      expect((await reader.getSchedule({ id: made.id })).id).to.equal(made.id);
      expect(await refused(create({}, '', reader))).to.include({ code: status.PERMISSION_DENIED, reason: 'PERMISSION_MISSING' });
      const writer = world.as({ ...person, scopes: ['schedules.read', 'schedules.write'] }, ScheduleServiceService);
      for (const call of [
        () => create({}, '', writer),
        () => update(made.id, { name: 'x' }, undefined, writer),
        () => writer.resumeSchedule({ id: made.id }),
        () => writer.runSchedule({ id: made.id, overlap: 0, requestId: '' }),
        () => writer.backfillSchedule({ id: made.id, startTime: new Date(0), endTime: new Date(0), overlap: 0, requestId: '' }),
      ])
        expect((await refused(call())).metadata.permission).to.equal('executions.run');
      expect((await writer.pauseSchedule({ id: made.id, reason: '' })).state).to.equal(State.PAUSED);
    });

    it('more schedules than a workspace may have', async () => {
      for (let index = 0; index < 3; index += 1) await create();
      expect(await refused(create())).to.deep.include({
        code: status.FAILED_PRECONDITION,
        reason: 'TOO_MANY_SCHEDULES',
        metadata: { max: '3' },
      });
      const [one] = (await list()).schedules;
      await service.deleteSchedule({ id: one?.id ?? '' });
      await create();
    });
  });

  it('shows and changes nothing across workspaces', async () => {
    const { id } = await create({ name: 'secret' });
    const tick = await run(id);
    const other = world.person({ user: person.user });
    const stranger = world.as(other, ScheduleServiceService);
    const strange = world.as(other, ScheduleTickServiceService);
    const range = { startTime: new Date(0), endTime: new Date(0), overlap: 0 as const, requestId: '' };
    const calls = {
      get: () => stranger.getSchedule({ id }),
      update: () => update(id, { name: 'mine' }, undefined, stranger),
      delete: () => stranger.deleteSchedule({ id }),
      pause: () => stranger.pauseSchedule({ id, reason: '' }),
      resume: () => stranger.resumeSchedule({ id }),
      run: () => stranger.runSchedule({ id, overlap: 0, requestId: '' }),
      backfill: () => stranger.backfillSchedule({ id, ...range }),
      times: () => stranger.listScheduleTimes(ListScheduleTimesRequest.fromPartial({ id })),
      ticks: () => strange.listScheduleTicks(ListScheduleTicksRequest.fromPartial({ scheduleId: id })),
      tick: () => strange.getScheduleTick({ scheduleId: id, id: tick.id }),
    };
    for (const [name, call] of Object.entries(calls)) expect((await refused(call())).code, name).to.equal(status.NOT_FOUND);
    expect((await stranger.listSchedules(ListSchedulesRequest.fromPartial({}))).schedules).to.deep.equal([]);
    expect(await service.getSchedule({ id })).to.include({ name: 'secret', version: 1 });
  });

  it('makes one schedule, one tick and one backfill of a repeated call', async () => {
    const made = await Promise.all(Array.from({ length: 4 }, () => create({ automationId: 'aut_00000000000000000000000000' }, 'key')));
    expect(new Set(made.map(({ id }) => id)).size).to.equal(1);
    const id = made[0]?.id ?? '';
    const runs = await Promise.all(Array.from({ length: 4 }, () => run(id, 'key')));
    expect(new Set(runs.map((tick) => tick.id)).size).to.equal(1);
    const range = {
      id,
      startTime: new Date(Date.now() - 3 * HOUR),
      endTime: new Date(Date.now() - 1000),
      overlap: 0 as const,
      requestId: 'key',
    };
    const filled = await Promise.all([service.backfillSchedule(range), service.backfillSchedule(range)]);
    expect(filled[0]).to.deep.equal(filled[1]);
    expect(await ticks(id)).to.have.length(1 + (filled[0]?.tickCount ?? 0));
    expect(await refused(service.backfillSchedule({ ...range, overlap: Overlap.SKIP }))).to.include({ reason: 'IDEMPOTENCY_KEY_REUSED' });
  });

  describe('updates', () => {
    it('the fields that the mask names, or those that are present, and reckons the next times again', async () => {
      const { id } = await create({ description: 'old', pauseOnFailure: true });
      expect(await update(id, { name: 'New', description: 'ignored' }, ['name'])).to.include({
        name: 'New',
        description: 'old',
        version: 2,
      });
      expect(await update(id, { pauseOnFailure: false })).to.include({ pauseOnFailure: false, description: 'old', version: 3 });
      expect(await update(id, {}, ['description', 'pause_on_failure'])).to.include({ description: '', version: 4 });
      const moved = await update(id, { spec: { crons: ['30 * * * *'] } });
      expect(moved.nextTimes[0]?.getUTCMinutes()).to.equal(30);
      expect((await update(id, { name: 'New' })).version, 'nothing changed').to.equal(5);
      expect(await refused(update(id, { state: State.PAUSED }))).to.include({ reason: 'NO_FIELDS' });
      expect((await refused(update(id, { spec: { crons: ['x'] } }))).violations[0]?.field).to.equal('schedule.spec.crons.0');
      expect((await refused(update(id, {}, ['spec']))).violations[0]?.field).to.equal('schedule.spec');
    });

    it('for whom it runs, when somebody else changes what is run', async () => {
      const { id } = await create();
      const colleague = { ...person, user: newId('user') };
      const theirs = world.as(colleague, ScheduleServiceService);
      expect((await update(id, { name: 'renamed' }, undefined, theirs)).runAsId).to.equal(person.user);
      expect((await update(id, { input: { n: 1 } }, undefined, theirs)).runAsId).to.equal(colleague.user);
    });

    it('keep ticks that were due by the old spec', async () => {
      const { id } = await create();
      await service.pauseSchedule({ id, reason: '' }); // holds the scheduler off
      await world
        .db('schedules')('schedules')
        .where({ id: toBytes('schedule', id) })
        .update({ state: 'ACTIVE', next_time: new Date(Date.now() + HOUR), tick_time: new Date(Math.floor(Date.now() / HOUR) * HOUR) }); // prettier-ignore
      await update(id, { spec: { crons: ['30 9 * * *'] } });
      expect((await ticks(id)).map(({ tickTime }) => tickTime?.getTime())).to.deep.equal([Math.floor(Date.now() / HOUR) * HOUR]);
    });
  });

  it('lists by state and automation, page by page', async () => {
    const automationId = newId('automation');
    const made = [await create({ automationId }), await create(), await create({ automationId })];
    await service.pauseSchedule({ id: made[2]?.id ?? '', reason: 'holidays' });
    const ids = async (fields: object) => (await list(fields)).schedules.map(({ id }) => made.findIndex((one) => one.id === id));
    expect(await ids({})).to.deep.equal([2, 1, 0]);
    expect(await ids({ automationId })).to.deep.equal([2, 0]);
    expect(await ids({ states: [State.PAUSED] })).to.deep.equal([2]);
    const first = await list({ pageSize: 2 });
    expect(await ids({ pageSize: 2, pageToken: first.nextPageToken })).to.deep.equal([0]);
    expect(await refused(list({ automationId, pageToken: first.nextPageToken }))).to.include({ reason: 'PAGE_TOKEN_INVALID' });
  });

  it('ends when no time is left, and goes on with another spec', async () => {
    const { id } = await create({ spec: { ...HOURLY, endTime: new Date(Date.now() + 2 * HOUR) } });
    await world
      .db('schedules')('schedules')
      .where({ id: toBytes('schedule', id) })
      .update({ spec: JSON.stringify({ crons: ['0 * * * *'], endTime: new Date().toISOString() }) }); // prettier-ignore
    await rewind(id, 0);
    await until('the schedule to end', async () => (await service.getSchedule({ id })).state === State.ENDED);
    expect(await ticks(id)).to.have.length(1);
    expect(await update(id, { spec: HOURLY })).to.include({ state: State.ACTIVE });
  });

  it('answers the times of a schedule and of a spec that is not kept', async () => {
    const { id } = await create({ spec: { crons: ['30 2 * * *'], timeZone: 'Europe/Berlin' } });
    const range = { fromTime: new Date('2026-03-28T00:00:00Z'), toTime: new Date('2026-03-30T00:30:00Z') };
    const expected = ['2026-03-28T01:30:00.000Z', '2026-03-29T01:00:00.000Z', '2026-03-30T00:30:00.000Z'];
    const { times } = await service.listScheduleTimes(ListScheduleTimesRequest.fromPartial({ id, ...range }));
    expect(times.map((time) => time.toISOString())).to.deep.equal(expected);
    const spec = { crons: ['30 2 * * *'], timeZone: 'Europe/Berlin' };
    const preview = (fields: object) => service.previewScheduleTimes(PreviewScheduleTimesRequest.fromPartial({ spec, ...fields }));
    expect((await preview({ ...range, count: 2 })).times.map((time) => time.toISOString())).to.deep.equal(expected.slice(0, 2));
    expect((await preview({})).times).to.have.length(10);
    expect((await refused(preview({ spec: { crons: ['99 * * * *'] } }))).violations[0]?.field).to.equal('spec.crons.0');
    const reader = world.as({ ...person, scopes: ['schedules.read'] }, ScheduleServiceService);
    expect((await reader.previewScheduleTimes(PreviewScheduleTimesRequest.fromPartial({ spec }))).times).to.have.length(10);
  });

  it('waits for executions that do not answer, and says so', async () => {
    const { id } = await create();
    const { id: tickId } = await run(id);
    const told = await until('the reason', async () => {
      const tick = await tickService.getScheduleTick({ scheduleId: id, id: tickId });
      return tick.reason ? tick : undefined;
    });
    expect(told).to.include({ state: TickState.STARTING, executionId: undefined });
    expect((await run(id)).state, 'a second one').to.equal(TickState.SKIPPED);
    expect((await service.getSchedule({ id })).counts).to.include({ skipped: 1, running: 1, started: 0 });
  });

  it('fills a range of the past, and no larger one than it takes', async () => {
    const { id } = await create();
    await service.pauseSchedule({ id, reason: '' });
    const floor = Math.floor(Date.now() / HOUR) * HOUR;
    const fill = (hours: number, fields: object = {}) =>
      service.backfillSchedule({
        id,
        startTime: new Date(floor - hours * HOUR),
        endTime: new Date(floor),
        overlap: 0,
        requestId: '',
        ...fields,
      });
    const filled = await fill(4);
    expect(filled).to.include({ tickCount: 5, skippedCount: 0 });
    const made = await ticks(id, { backfillId: filled.id });
    expect(made.map(({ tickTime }) => tickTime?.getTime())).to.deep.equal([0, 1, 2, 3, 4].map((hours) => floor - hours * HOUR));
    expect(made.map(({ state }) => state).filter((state) => state === TickState.BUFFERED)).to.have.length(4);
    expect(await fill(4, { overlap: Overlap.SKIP })).to.include({ tickCount: 5, skippedCount: 5 });
    expect(await refused(fill(1001))).to.include({ code: status.INVALID_ARGUMENT, reason: 'RANGE_TOO_LARGE' });
    expect((await refused(fill(1, { endTime: new Date(Date.now() + HOUR) }))).violations[0]?.field).to.equal('endTime');
    expect((await refused(fill(-1, { endTime: new Date(floor) }))).violations[0]?.field).to.equal('endTime');
  });

  it('counts what passed unseen for longer than the catch-up window, and makes up for the rest', async () => {
    const { id } = await create({ catchUpWindow: { seconds: 3 * 3600 - 1 }, overlap: Overlap.BUFFER_ALL });
    await rewind(id, 9 * HOUR);
    const claimed = await until('the ticks', async () => {
      const found = await ticks(id);
      return found.length === 4 ? found : undefined;
    });
    const { counts, nextTimes } = await service.getSchedule({ id });
    expect(claimed.filter(({ state }) => state === TickState.MISSED).map(({ count }) => count)).to.deep.equal([7]);
    expect(counts).to.include({ missed: 7, buffered: 2 });
    expect(nextTimes[0]?.getTime()).to.be.above(Date.now());
  });

  it('does not count what passes while it is paused', async () => {
    const { id } = await create();
    expect(await service.pauseSchedule({ id, reason: 'holidays' })).to.include({
      state: State.PAUSED,
      pauseReason: 'holidays',
      version: 2,
    });
    expect((await service.pauseSchedule({ id, reason: 'holidays' })).version).to.equal(2);
    expect((await service.getSchedule({ id })).nextTimes).to.deep.equal([]);
    const resumed = await service.resumeSchedule({ id });
    expect(resumed).to.include({ state: State.ACTIVE, pauseReason: '', version: 3 });
    expect(resumed.nextTimes[0]?.getTime()).to.be.above(Date.now());
    expect((await service.resumeSchedule({ id })).version).to.equal(3);
    expect(await ticks(id)).to.deep.equal([]);
  });

  it('pauses a schedule whose spec cannot be read any more, and goes on with others', async () => {
    const broken = await create();
    const sound = await create();
    await world
      .db('schedules')('schedules')
      .where({ id: toBytes('schedule', broken.id) })
      .update({ spec: JSON.stringify({ crons: ['0 * * * *'], timeZone: 'Gone/Away' }) }); // prettier-ignore
    await rewind(broken.id, 2 * HOUR);
    await rewind(sound.id, 0);
    await until('the sound one to tick', async () => (await ticks(sound.id)).length === 1);
    const paused = await until('the broken one to be paused', async () => {
      const found = (await list()).schedules.find(({ id }) => id === broken.id);
      return found?.state === State.PAUSED ? found : undefined;
    });
    expect(paused.pauseReason).to.match(/cannot be reckoned any more: .*Gone\/Away/);
  });

  it('pauses the schedules of a user who was disabled, and no others', async () => {
    const mine = await create();
    const colleague = { ...person, user: newId('user') };
    const theirs = await create({}, '', world.as(colleague, ScheduleServiceService));
    const js = jetstream(published.broker);
    const headers = natsHeaders();
    for (const [name, value] of Object.entries({
      id: newId('event'),
      type: 'user.disabled',
      subject: colleague.user,
      time: new Date().toISOString(),
    }))
      headers.set(`ce-${name}`, value);
    await js.publish(`${world.config.natsPrefix}.events.identity.${colleague.user}.disabled`, '', { headers });
    const paused = await until('the pause', async () => {
      const found = await service.getSchedule({ id: theirs.id });
      return found.state === State.PAUSED ? found : undefined;
    });
    expect(paused.pauseReason).to.match(/^the user it runs for was disabled/);
    expect(await service.getSchedule({ id: mine.id })).to.include({ state: State.ACTIVE, version: 1 });
  });

  it('publishes what happens, once each', async () => {
    const { id } = await create({ input: { secret: 1 } });
    await update(id, { name: 'other' });
    await service.pauseSchedule({ id, reason: 'x' });
    await service.resumeSchedule({ id });
    const tick = await run(id);
    await service.deleteSchedule({ id });
    const mine = () => published.heard.filter(({ event }) => event.schedule?.id === id);
    await until('the deletion to be published', () => mine().find(({ type }) => type === 'schedule.deleted'));
    expect(mine().map(({ type, version }) => `${type} ${version}`)).to.have.members([
      'schedule.created 1',
      'schedule.updated 2',
      'schedule.paused 3',
      'schedule.resumed 4',
      'schedule.ticked 4',
      'schedule.deleted 5',
    ]);
    const ticked = mine().find(({ type }) => type === 'schedule.ticked');
    expect(ticked?.event).to.deep.include({ workspaceId: person.workspace, actorId: person.user });
    expect(ticked?.event.tick).to.include({ id: tick.id, state: TickState.STARTING });
    expect(ticked?.event.schedule?.input).to.equal(undefined);
    expect(await refused(service.deleteSchedule({ id }))).to.include({ code: status.NOT_FOUND });
  });
});
