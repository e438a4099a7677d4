import { expect } from 'chai';
import {
  ScheduleTick_Cause as Cause,
  Schedule,
  type Schedule_State,
  ScheduleTick,
  ScheduleTick_State as State,
} from '#gen/millrace/schedules/v1/schedule.ts';
import type { Db } from '#platform/db.ts';
import { newId, toBytes } from '#platform/id.ts';
import { migrate, rollback } from '#platform/migrate.ts';
import { startWorld, type World } from '../../../tests/world.ts';
import { module } from '../module.ts';
import * as schedule from '../schedule.ts';
import * as system from '../schedule-system.ts';
import * as schedules from './schedules.ts';
import * as ticks from './ticks.ts';

describe('schedules in the database', () => {
  let world: World;
  let db: Db;
  const workspace = newId('workspace');
  const now = new Date('2026-05-01T00:00:00.000Z');

  before(async () => {
    const idle = { name: 'stranger', start: async () => async () => undefined }; // the schema alone: no worker takes what a test made due
    world = await startWorld({ targets: ['stranger'], modules: [module, idle] });
    db = world.db('schedules');
  });
  after(() => world?.stop());
  beforeEach(() => db('schedules').delete());

  async function make(fields: object = {}): Promise<schedule.Kept> {
    const draft = Schedule.fromPartial({ name: 'a', automationId: newId('automation'), spec: { crons: ['0 * * * *'] }, ...fields });
    const kept = schedule.accept(draft, newId('user'), newId('schedule'), now, 1000);
    await db.transaction((tx) => schedules.insert(tx, workspace, kept));
    return kept;
  }
  const tick = (scheduleId: string, fields: object = {}): ticks.NewTick => ({
    ...ScheduleTick.fromPartial({
      id: newId('tick'),
      scheduleId,
      tickTime: now,
      dueTime: now,
      createTime: now,
      cause: Cause.SPEC,
      state: State.STARTING,
      overlap: 1,
      count: 1,
      ...fields,
    }),
    action: 1,
    backfillId: '',
    stop: '',
  }); // prettier-ignore
  const insert = (...all: ticks.NewTick[]) => db.transaction((tx) => ticks.insert(tx, workspace, all));

  it('come back as they were kept', async () => {
    const whole = await make({
      description: 'two',
      revision: 3,
      input: { a: { b: [1, null, 'ü'] } },
      labels: { z: '1', a: '2' },
      priority: 0,
      spec: {
        crons: ['30 2 * * *'],
        intervals: [{ every: { seconds: 90, nanos: 500_000_000 }, offset: { seconds: 1 } }],
        timeZone: 'Europe/Berlin',
        excludeDates: ['12-24'],
        excludeCrons: ['* 3 * * *'],
        startTime: new Date('2026-05-02T00:00:00.123Z'),
        endTime: new Date('2027-05-02T00:00:00.000Z'),
        jitter: { seconds: 5 },
      },
      overlap: 5,
      catchUpWindow: { seconds: 60 },
      pauseOnFailure: true,
      timeParameter: 'when',
    });
    const found = await schedules.get(db, workspace, whole.schedule.id);
    expect(found).to.deep.equal({ ...whole, schedule: { ...whole.schedule, nextTimes: [whole.next?.tickTime] } });
  });

  it('hold a tick of a spec once, and one of a backfill or a person beside it', async () => {
    const { schedule: one } = await make();
    await insert(tick(one.id));
    const refused = await insert(tick(one.id)).catch((error) => error.code);
    expect(refused).to.equal('ER_DUP_ENTRY');
    await insert(tick(one.id, { cause: Cause.MANUAL }), tick(one.id, { cause: Cause.MANUAL }), {
      ...tick(one.id, { cause: Cause.BACKFILL }),
      backfillId: newId('backfill'),
    }); // prettier-ignore
    const { schedule: other } = await make();
    await insert(tick(other.id));
    expect(await ticks.list(db, workspace, one.id, { states: [], backfillId: '' }, undefined, 9)).to.have.length(4);
  });

  it('are claimed by one at a time, the longest due first, as the database’s clock has it', async () => {
    const late = [await make(), await make(), await make()];
    const future = await make();
    for (const [index, { schedule: one }] of late.entries()) {
      const next_time = db.raw('utc_timestamp(6) - interval ? second', [10 - index]);
      await db('schedules').where('id', toBytes('schedule', one.id)).update({ next_time }); // prettier-ignore
    }
    const soon = db.raw('utc_timestamp(6) + interval 1 minute');
    await db('schedules').where('id', toBytes('schedule', future.schedule.id)).update({ next_time: soon }); // prettier-ignore
    const claimed: (string | undefined)[] = [];
    const within = async (depth: number): Promise<void> =>
      db.transaction(async (tx) => {
        claimed.push((await system.lockDue(tx))?.id);
        if (depth > 1) await within(depth - 1); // another connection, while this one holds its lock
      });
    await within(4);
    expect(claimed).to.deep.equal([...late.map((one) => one.schedule.id), undefined]);
  });

  it('have ticks that are looked after once in a while, by one process', async () => {
    const { schedule: one } = await make();
    const made = [tick(one.id), tick(one.id, { tickTime: new Date(0) }), tick(one.id, { tickTime: new Date(1), state: State.BUFFERED })];
    await insert(...made);
    const [first, second] = await Promise.all([system.claimDueTicks(db, 5), system.claimDueTicks(db, 5)]);
    const both = [...first, ...second];
    expect(new Set(both.map(({ id }) => id))).to.deep.equal(new Set(made.slice(0, 2).map(({ id }) => id)));
    expect(both).to.have.length(2);
    expect(both[0]).to.include({ isNew: true, isOld: false, state: State.STARTING });
    expect(await system.claimDueTicks(db, 5)).to.deep.equal([]);
    await db('schedule_ticks').update({ check_time: db.raw('utc_timestamp(6)') });
    expect((await system.claimDueTicks(db, 5)).filter(({ state }) => state === State.STARTING).map(({ isNew }) => isNew)).to.deep.equal([
      false,
      false,
    ]);
  });

  it('forget ticks that ended long ago, and no others', async () => {
    const { schedule: one } = await make();
    const old = tick(one.id, { state: State.SKIPPED });
    const young = tick(one.id, { tickTime: new Date(0), state: State.SKIPPED });
    const open = tick(one.id, { tickTime: new Date(1) });
    await insert(old, young, open);
    await db('schedule_ticks')
      .where('id', toBytes('tick', old.id))
      .update({ end_time: db.raw('utc_timestamp(6) - interval 31 day') }); // prettier-ignore
    await system.forgetTicks(db, 30);
    const left = await ticks.list(db, workspace, one.id, { states: [], backfillId: '' }, undefined, 9);
    expect(new Set(left.map(({ id }) => id))).to.deep.equal(new Set([young.id, open.id]));
  });

  it('list by state, and take ticks and actions with them when they go', async () => {
    const { schedule: one } = await make();
    const { schedule: two } = await make();
    await insert(tick(one.id), tick(two.id));
    const states = [one.state] as Schedule_State[];
    expect((await schedules.list(db, workspace, { states, automationId: '' }, undefined, 9)).map(({ id }) => id)).to.deep.equal([
      two.id,
      one.id,
    ]);
    expect((await schedules.list(db, workspace, { states, automationId: '' }, two.id, 9)).map(({ id }) => id)).to.deep.equal([one.id]);
    await schedules.remove(db as never, workspace, one.id);
    for (const table of ['schedule_ticks', 'schedule_actions'])
      expect(await db(table).where('schedule', toBytes('schedule', one.id))).to.deep.equal([]); // prettier-ignore
    expect(await db('schedule_ticks')).to.have.length(1);
  });

  it('are migrated back and forth', async () => {
    const config = { ...world.config, databasePrefix: `${world.config.databasePrefix}_down` };
    const area = { name: 'schedules', migrations: module.migrations as URL };
    const up = await migrate(config, area);
    for (const name of up.toReversed()) expect(await rollback(config, area)).to.deep.equal([name]);
    expect(await migrate(config, area), 'and forth').to.deep.equal(up);
  });
});
