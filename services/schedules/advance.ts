// advance.ts: brings a locked schedule up to now: claims what is due and finds what is next, in one transaction.
import { ScheduleTick_Cause as Cause, Schedule_State as State } from '#gen/millrace/schedules/v1/schedule.ts';
import type { Tx } from '#platform/db.ts';
import { emit } from '#platform/outbox.ts';
import * as admits from './admit.ts';
import * as events from './events.ts';
import * as plans from './plan.ts';
import * as schedule from './schedule.ts';
import * as schedules from './store/schedules.ts';
import * as ticks from './store/ticks.ts';

interface Settings {
  maxBuffered: number;
}

const MOST_ROUNDS = 100;

// Claims some of the ticks that are due; those that are left are due at once. A tick whose row is there already is not claimed again.
export async function advance(tx: Tx, workspace: string, kept: schedule.Kept, now: Date, settings: Settings): Promise<schedule.Kept> {
  if (!kept.next) return kept;
  const found = plan(kept, kept.next, now);
  if (found instanceof Error) return giveUp(tx, workspace, kept, found, now);
  return claim(tx, workspace, kept, found, now, settings);
}

// The same until nothing is due, and without jitter: a schedule that gets another spec keeps what the old one named until now.
export async function finish(tx: Tx, workspace: string, kept: schedule.Kept, now: Date, settings: Settings): Promise<schedule.Kept> {
  let current = kept;
  for (let round = 0; round < MOST_ROUNDS && current.next && current.next.tickTime <= now; round += 1) {
    const { tickTime } = current.next;
    const found = plans.due({ ...schedule.planOf(current.schedule), jitterMs: 0 }, { tickTime, dueTime: tickTime }, now);
    current = await claim(tx, workspace, current, found, now, settings);
  }
  return current;
}

async function claim(tx: Tx, workspace: string, kept: schedule.Kept, found: plans.Due, now: Date, settings: Settings) {
  const actor = { user: '', workspace };
  const { id, overlap } = kept.schedule;
  const { missed, next } = found;
  const all = [...(missed ? [missed] : []), ...found.ticks];
  const known = await ticks.claimedTimes(
    tx,
    workspace,
    id,
    all.map(({ tickTime }) => tickTime),
  );
  const isNew = ({ tickTime }: plans.Planned) => !known.has(tickTime.getTime());
  const asked = found.ticks.filter(isNew).map((tick) => ({ ...tick, cause: Cause.SPEC }));
  if (missed && isNew(missed)) await admits.miss(tx, actor, kept, missed, now);
  await admits.admit(tx, actor, kept, asked, overlap, now, settings);
  const after = schedule.advanced(kept, next);
  await schedules.save(tx, workspace, kept, after);
  return after;
}

function plan(kept: schedule.Kept, from: plans.Planned, now: Date): plans.Due | Error {
  try {
    return plans.due(schedule.planOf(kept.schedule), from, now);
  } catch (error) {
    return error as Error;
  }
}

// A spec that was read when it was kept may not be read by a later version: whoever looks is told, and other schedules go on.
async function giveUp(tx: Tx, workspace: string, kept: schedule.Kept, error: Error, now: Date): Promise<schedule.Kept> {
  const after = schedule.pause(kept, `its times cannot be reckoned any more: ${error.message}`, now);
  await schedules.save(tx, workspace, kept, after);
  if (after.schedule.state === State.PAUSED) await emit(tx, events.paused(after.schedule, { user: '', workspace }));
  return after;
}
