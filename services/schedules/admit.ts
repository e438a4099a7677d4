// admit.ts: claims ticks of a locked schedule: each is decided by its overlap policy, kept once, and told.
import {
  ScheduleTick_Cause as Cause,
  type Schedule_Overlap as Overlap,
  type Schedule,
  ScheduleTick_State as State,
} from '#gen/millrace/schedules/v1/schedule.ts';
import type { Tx } from '#platform/db.ts';
import { newId } from '#platform/id.ts';
import { counter, histogram } from '#platform/metrics.ts';
import { emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import * as overlap from './overlap.ts';
import type { Missed, Planned } from './plan.ts';
import type { Kept } from './schedule.ts';
import * as schedules from './store/schedules.ts';
import * as ticks from './store/ticks.ts';

export interface Asked extends Planned {
  cause: Cause;
  id?: string; // of the tick, when it is chosen already
  backfillId?: string;
}
interface Settings {
  maxBuffered: number;
}
type Live = Pick<ticks.Live, 'id' | 'state'>;

const taken = counter('millrace_schedules_ticks_total', 'Ticks claimed', ['outcome']);
const lateness = histogram('millrace_schedules_lateness_seconds', 'From when a tick of a spec was due to its claim');

const STATES = { START: State.STARTING, BUFFER: State.BUFFERED, SKIP: State.SKIPPED } as const;
const LATE = 'the scheduler was away for longer than the catch-up window';

// Claims ticks in their order. Answers them as they were decided.
export async function admit(
  tx: Tx,
  actor: events.Actor,
  kept: Kept,
  asked: readonly Asked[],
  policy: Overlap,
  now: Date,
  { maxBuffered }: Settings,
): Promise<ticks.NewTick[]> {
  const { schedule } = kept;
  const before: Live[] = await ticks.live(tx, actor.workspace, schedule.id);
  const made: ticks.NewTick[] = [];
  const stopped = new Map<string, overlap.Stop>();
  const cleared = new Set<string>();
  for (const one of asked) {
    const open = [...before, ...made].filter(({ id, state }) => !ticks.isFinal(state) && !cleared.has(id));
    const waiting = open.filter(({ state }) => state === State.BUFFERED);
    const active = open.filter(({ state }) => state !== State.BUFFERED);
    const verdict = overlap.decide(policy, { active: active.length, buffered: waiting.length }, maxBuffered);
    if (verdict.stops) for (const { id } of active) stopped.set(id, verdict.stops);
    if (verdict.clears) for (const { id } of waiting) cleared.add(id);
    made.push({ ...tickOf(schedule, one, now), action: kept.action, overlap: policy, state: STATES[verdict.act], reason: verdict.reason });
  }
  const decided = made.map((tick) => ({
    ...tick,
    stop: stopped.get(tick.id) ?? '',
    ...(cleared.has(tick.id) && { state: State.SKIPPED, reason: overlap.CLEARED }),
  }));
  await ticks.insert(tx, actor.workspace, decided);
  const old = before.map(({ id }) => id);
  for (const [id, how] of stopped) if (old.includes(id)) await ticks.stop(tx, actor.workspace, schedule.id, id, how);
  for (const id of old.filter((id) => cleared.has(id)))
    await ticks.move(tx, actor.workspace, schedule.id, id, [State.BUFFERED], State.SKIPPED, overlap.CLEARED);
  const skipped = decided.filter(({ state }) => state === State.SKIPPED).length + old.filter((id) => cleared.has(id)).length;
  await schedules.add(tx, actor.workspace, schedule.id, { skipped });
  await emit(tx, ...decided.map((tick) => events.ticked(schedule, tick, actor)));
  for (const { state, cause, dueTime } of decided) {
    taken.inc({ outcome: state === State.SKIPPED ? 'skipped' : 'claimed' });
    if (cause === Cause.SPEC && dueTime) lateness.observe((now.getTime() - dueTime.getTime()) / 1000);
  }
  return decided;
}

// Keeps a stretch of times that passed unseen, as one tick.
export async function miss(tx: Tx, actor: events.Actor, kept: Kept, missed: Missed, now: Date): Promise<void> {
  const { schedule } = kept;
  const stretch = missed.count > 1 ? `${missed.count} times from ${missed.from.toISOString()} on: ${LATE}` : LATE;
  const tick: ticks.NewTick = {
    ...tickOf(schedule, { ...missed, cause: Cause.SPEC }, now),
    action: kept.action,
    overlap: schedule.overlap,
    state: State.MISSED,
    reason: stretch,
    count: missed.count,
  };
  await ticks.insert(tx, actor.workspace, [tick]);
  await schedules.add(tx, actor.workspace, schedule.id, { missed: missed.count });
  await emit(tx, events.ticked(schedule, tick, actor));
  taken.inc({ outcome: 'missed' }, missed.count);
}

// Starts the first tick that waits, once none is active. What the spec made waits on while the schedule is paused. Answers whether it did.
export async function release(tx: Tx, workspace: string, scheduleId: string, isPaused: boolean): Promise<boolean> {
  const open = await ticks.live(tx, workspace, scheduleId);
  if (open.some(({ state }) => state !== State.BUFFERED)) return false;
  const next = open.find(({ cause }) => !isPaused || cause !== Cause.SPEC);
  return next !== undefined && ticks.move(tx, workspace, scheduleId, next.id, [State.BUFFERED], State.STARTING);
}

const tickOf = (schedule: Schedule, { tickTime, dueTime, cause, id = newId('tick'), backfillId = '' }: Asked, now: Date) => ({
  id,
  scheduleId: schedule.id,
  tickTime,
  dueTime,
  cause,
  backfillId,
  executionId: undefined,
  count: 1,
  createTime: now,
  startTime: undefined,
  endTime: undefined,
  stop: '' as const,
});
