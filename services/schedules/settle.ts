// settle.ts: what follows from the end of a tick: counts, a pause after a failure, and the turn of the next one that waits.
import { Schedule_State, ScheduleTick_State as State } from '#gen/millrace/schedules/v1/schedule.ts';
import type { Db } from '#platform/db.ts';
import { emit } from '#platform/outbox.ts';
import { release } from './admit.ts';
import * as events from './events.ts';
import * as schedule from './schedule.ts';
import type { DueTick } from './schedule-system.ts';
import * as schedules from './store/schedules.ts';
import * as ticks from './store/ticks.ts';

const COUNTS: Partial<Record<State, schedules.Counted>> = {
  [State.SUCCEEDED]: { succeeded: 1 },
  [State.FAILED]: { failed: 1 },
  [State.TIMED_OUT]: { failed: 1 },
};

// Ends a tick, once.
export async function end(
  db: Db,
  { workspace, scheduleId, id }: Pick<DueTick, 'workspace' | 'scheduleId' | 'id'>,
  to: State,
  reason: string,
) {
  await db.transaction(async (tx) => {
    const before = await schedules.find(tx, workspace, scheduleId);
    if (!before) return;
    if (!(await ticks.move(tx, workspace, scheduleId, id, [State.STARTING, State.RUNNING], to, reason))) return;
    await schedules.add(tx, workspace, scheduleId, COUNTS[to] ?? {});
    const isFailure = to === State.FAILED || to === State.TIMED_OUT;
    const pauses = isFailure && before.schedule.pauseOnFailure && before.schedule.state !== Schedule_State.PAUSED;
    const after = pauses ? schedule.pause(before, `tick ${id} failed: ${reason}`, await schedules.clock(tx)) : before;
    if (after !== before) {
      await schedules.save(tx, workspace, before, after);
      await emit(tx, events.paused(after.schedule, { user: '', workspace }));
    }
    await release(tx, workspace, scheduleId, after.schedule.state === Schedule_State.PAUSED);
  });
}

// Starts what waits, if nothing is in its way any more.
export const beginWaiting = (db: Db, { workspace, scheduleId }: Pick<DueTick, 'workspace' | 'scheduleId'>): Promise<void> =>
  db.transaction(async (tx) => {
    const kept = await schedules.find(tx, workspace, scheduleId);
    if (kept) await release(tx, workspace, scheduleId, kept.schedule.state === Schedule_State.PAUSED);
  });
