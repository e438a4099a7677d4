// The methods of ScheduleService, in the contract's order.
import type { ErrorReason } from '#gen/millrace/schedules/v1/error_reason.ts';
import {
  ScheduleTick_Cause as Cause,
  Schedule_Overlap as Overlap,
  Schedule,
  type ScheduleTick,
} from '#gen/millrace/schedules/v1/schedule.ts';
import type { ScheduleServiceService } from '#gen/millrace/schedules/v1/schedule_service.ts';
import { ScheduleSpec } from '#gen/millrace/schedules/v1/spec.ts';
import type { Db } from '#platform/db.ts';
import { invalid, reasonsOf } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { claimKey } from '#platform/idempotency.ts';
import { maskedFields } from '#platform/mask.ts';
import { emit } from '#platform/outbox.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import { admit, release } from '../admit.ts';
import { finish } from '../advance.ts';
import { change } from '../change.ts';
import * as events from '../events.ts';
import * as schedule from '../schedule.ts';
import { shown } from '../shown.ts';
import * as specs from '../spec.ts';
import * as schedules from '../store/schedules.ts';
import * as ticks from '../store/ticks.ts';

export interface Deps {
  db: Db;
  settings: { max: number; leastSeconds: number; maxBuffered: number };
  wake(): void; // ticks or times may be due
}

const MAX_BACKFILL = 1000;
const TIMES = 10;
const faults = reasonsOf<keyof typeof ErrorReason>('schedules');

export const handlers = ({ db, settings, wake }: Deps): Handlers<ScheduleServiceService> => ({
  async createSchedule({ schedule: draft = Schedule.fromPartial({}) }, call) {
    const { workspace, user } = call.caller;
    schedule.mustRun(call.caller);
    const id = newId('schedule');
    const made = await db.transaction(async (tx) => {
      const earlier = await claimKey(tx, call, id);
      if (earlier) return schedules.get(tx, workspace, earlier);
      const kept = schedule.accept(draft, user, id, await schedules.clock(tx), leastMs(settings));
      if ((await schedules.count(tx, workspace)) >= settings.max)
        throw faults.failedPrecondition(
          'TOO_MANY_SCHEDULES',
          `the workspace has ${settings.max} schedules, as many as it may: delete one`,
          {
            max: String(settings.max),
          },
        );
      await schedules.insert(tx, workspace, kept);
      await emit(tx, events.created(kept.schedule, call.caller));
      return kept;
    });
    wake();
    return shown(db, workspace, made);
  },

  async getSchedule({ id }, { caller }) {
    return shown(db, caller.workspace, await schedules.get(db, caller.workspace, id));
  },

  async listSchedules({ pageSize: asked, pageToken, ...query }, { caller }) {
    const size = pageSize(asked);
    const found = await schedules.list(db, caller.workspace, query, decodePage<string>(pageToken, query), size + 1);
    const { items, last } = cutPage(found, size, Schedule);
    return { schedules: items, nextPageToken: last ? encodePage(query, last.id) : '' };
  },

  async updateSchedule({ id, schedule: draft = Schedule.fromPartial({}), updateMask }, { caller }) {
    schedule.mustRun(caller);
    const fields = maskedFields(updateMask, draft, schedule.UPDATABLE, Schedule);
    const kept = await change(db, caller, id, events.updated, async (before, now, tx) => {
      const base = fields.includes('spec') ? await finish(tx, caller.workspace, before, now, settings) : before;
      return schedule.update(base, draft, fields, caller.user, now, leastMs(settings));
    });
    wake();
    return shown(db, caller.workspace, kept);
  },

  async deleteSchedule({ id }, { caller }) {
    await db.transaction(async (tx) => {
      const gone = await schedules.lock(tx, caller.workspace, id);
      await schedules.remove(tx, caller.workspace, id);
      await emit(tx, events.deleted(gone.schedule, caller));
    });
    return {};
  },

  async pauseSchedule({ id, reason }, { caller }) {
    const kept = await change(db, caller, id, events.paused, (before, now) => schedule.pause(before, reason, now));
    return shown(db, caller.workspace, kept);
  },

  async resumeSchedule({ id }, { caller }) {
    schedule.mustRun(caller);
    const kept = await change(db, caller, id, events.resumed, async (before, now, tx) => {
      await release(tx, caller.workspace, id, false);
      return schedule.resume(before, now);
    });
    wake();
    return shown(db, caller.workspace, kept);
  },

  async runSchedule({ id, overlap }, call) {
    const { caller } = call;
    schedule.mustRun(caller);
    const tickId = newId('tick');
    const tick = await db.transaction(async (tx) => {
      const kept = await schedules.lock(tx, caller.workspace, id);
      const earlier = await claimKey(tx, call, tickId);
      if (earlier) return ticks.get(tx, caller.workspace, id, earlier);
      const now = await schedules.clock(tx);
      const asked = { id: tickId, tickTime: now, dueTime: now, cause: Cause.MANUAL };
      const [made] = await admit(tx, caller, kept, [asked], overlap || kept.schedule.overlap, now, settings);
      return made as ScheduleTick;
    });
    wake();
    return tick;
  },

  async backfillSchedule({ id, startTime, endTime, overlap }, call) {
    const { caller } = call;
    schedule.mustRun(caller);
    const backfillId = newId('backfill');
    const made = await db.transaction(async (tx) => {
      const kept = await schedules.lock(tx, caller.workspace, id);
      const earlier = await claimKey(tx, call, backfillId);
      if (earlier) return earlier;
      const now = await schedules.clock(tx);
      const asked = rangeOf(kept.schedule, startTime as Date, endTime as Date, now).map((tickTime, index) => ({
        tickTime,
        dueTime: new Date(now.getTime() + index), // in their order
        cause: Cause.BACKFILL,
        backfillId,
      }));
      await admit(tx, caller, kept, asked, overlap || Overlap.BUFFER_ALL, now, settings);
      return backfillId;
    });
    wake();
    return { id: made, ...(await ticks.madeBy(db, caller.workspace, id, made)) };
  },

  async listScheduleTimes({ id, fromTime, toTime, count }, { caller }) {
    const kept = await schedules.get(db, caller.workspace, id);
    const { times } = schedule.planOf(kept.schedule);
    return { times: specs.timesIn(times, fromTime ?? (await schedules.clock(db)), toTime, count || TIMES) };
  },

  async previewScheduleTimes({ spec = ScheduleSpec.fromPartial({}), fromTime, toTime, count }) {
    const from = fromTime ?? (await schedules.clock(db));
    specs.check(spec, 'spec', from, leastMs(settings));
    return { times: specs.timesIn(specs.timesOf(spec), from, toTime, count || TIMES) };
  },
});

const leastMs = ({ leastSeconds }: Pick<Deps['settings'], 'leastSeconds'>): number => leastSeconds * 1000;

// The times that a backfill is for.
function rangeOf(kept: Schedule, from: Date, to: Date, now: Date): Date[] {
  if (to > now) throw invalid('endTime', `must not be in the future: it is ${now.toISOString()} now`);
  if (to < from) throw invalid('endTime', 'must not be before startTime');
  const found = specs.timesIn(schedule.planOf(kept).times, from, to, MAX_BACKFILL + 1);
  if (found.length <= MAX_BACKFILL) return found;
  const until = found.at(-2)?.toISOString();
  throw faults.invalid('RANGE_TOO_LARGE', `the range holds more than ${MAX_BACKFILL} times: ask for those until ${until} first`, [], {
    max: String(MAX_BACKFILL),
  });
}
