// schedule.ts: what a schedule is and how it may change. Nothing here reads a clock, makes an id or knows where schedules are kept.
import { isDeepStrictEqual } from 'node:util';
import { Struct } from '#gen/google/protobuf/struct.ts';
import {
  Schedule_Overlap as Overlap,
  type Schedule,
  ScheduleCounts,
  Schedule_State as State,
} from '#gen/millrace/schedules/v1/schedule.ts';
import { type Fault, fault, invalid, permissionDenied } from '#platform/errors.ts';
import type { Caller } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import * as plans from './plan.ts';
import * as specs from './spec.ts';

// What an update may name, as in a field mask.
export const UPDATABLE = [
  ...(['name', 'description', 'automation_id', 'revision', 'input', 'labels', 'priority', 'spec', 'overlap'] as const),
  ...(['catch_up_window', 'pause_on_failure', 'time_parameter'] as const),
] as const;
export type Updatable = (typeof UPDATABLE)[number];

// A schedule and what it needs to go on: the tick that is next. None unless it is active.
export interface Kept {
  schedule: Schedule;
  next: plans.Planned | undefined;
  action: number; // counts the changes of what is run
}

// Labels that the executions of a schedule carry.
export const SCHEDULE_LABEL = 'schedule';
export const TIME_LABEL = 'schedule_time';

const RUN = 'executions.run';
const RUNS: readonly Updatable[] = ['automation_id', 'revision', 'input', 'labels', 'priority', 'time_parameter'];
const WRITABLE = ['name', 'description', 'automationId', 'revision', 'input', 'labels', 'priority', 'spec', 'overlap', 'catchUpWindow'];
const MAX_INPUT_BYTES = 1024 * 1024; // as protobuf
const CATCH_UP_SECONDS = 3600;
const MAX_REASON = 500;

// Whoever lets a schedule make executions must be allowed to make them.
export function mustRun({ scopes }: Pick<Caller, 'scopes'>): void {
  if (!scopes.has(RUN))
    throw permissionDenied('PERMISSION_MISSING', `a schedule makes executions: this needs the permission ${RUN}, too`, { permission: RUN });
}

export function accept(draft: Schedule, creatorId: string, id: string, now: Date, leastGapMs: number): Kept {
  const schedule: Schedule = {
    ...written(draft),
    id,
    state: State.ACTIVE,
    pauseReason: '',
    creatorId,
    runAsId: creatorId,
    nextTimes: [],
    recentTicks: [],
    counts: ScheduleCounts.fromPartial({}),
    createTime: now,
    updateTime: now,
    version: 1,
  };
  specs.check(schedule.spec, 'schedule.spec', now, leastGapMs);
  return replanned({ schedule, next: undefined, action: 1 }, now);
}

export function update(kept: Kept, draft: Schedule, fields: readonly Updatable[], userId: string, now: Date, leastGapMs: number): Kept {
  const has = (field: Updatable) => fields.includes(field);
  const before = kept.schedule;
  const next = written({
    ...before,
    ...(has('name') && { name: draft.name }),
    ...(has('description') && { description: draft.description }),
    ...(has('automation_id') && { automationId: draft.automationId }),
    ...(has('revision') && { revision: draft.revision }),
    ...(has('input') && { input: draft.input }),
    ...(has('labels') && { labels: draft.labels }),
    ...(has('priority') && { priority: draft.priority }),
    ...(has('spec') && { spec: draft.spec }),
    ...(has('overlap') && { overlap: draft.overlap }),
    ...(has('catch_up_window') && { catchUpWindow: draft.catchUpWindow }),
    ...(has('pause_on_failure') && { pauseOnFailure: draft.pauseOnFailure }),
    ...(has('time_parameter') && { timeParameter: draft.timeParameter }),
  });
  if (isDeepStrictEqual(next, before)) return kept;
  const runsOther = fields.some((field) => RUNS.includes(field)) && !isDeepStrictEqual(actionOf(next), actionOf(before));
  const changed = {
    schedule: touched({ ...next, ...(runsOther && { runAsId: userId }) }, now),
    next: kept.next,
    action: kept.action + (runsOther ? 1 : 0),
  };
  if (isDeepStrictEqual(next.spec, before.spec)) return changed;
  specs.check(next.spec, 'schedule.spec', now, leastGapMs);
  return before.state === State.PAUSED ? changed : replanned(changed, now);
}

export function pause(kept: Kept, reason: string, now: Date): Kept {
  const { schedule } = kept;
  if (schedule.state === State.PAUSED && schedule.pauseReason === reason) return kept;
  return {
    ...kept,
    next: undefined,
    schedule: touched({ ...schedule, state: State.PAUSED, pauseReason: reason.slice(0, MAX_REASON) }, now),
  };
}

export function resume(kept: Kept, now: Date): Kept {
  const { schedule } = kept;
  if (schedule.state !== State.PAUSED) return kept;
  return replanned({ ...kept, schedule: touched({ ...schedule, state: State.ACTIVE, pauseReason: '' }, now) }, now);
}

// The schedule from here on: the tick that is next, or none.
export const advanced = (kept: Kept, next: plans.Planned | undefined): Kept => ({
  ...kept,
  next,
  schedule: { ...kept.schedule, state: next ? State.ACTIVE : State.ENDED },
});

const replanned = (kept: Kept, now: Date): Kept => advanced(kept, plans.first(planOf(kept.schedule), now));

export const planOf = (schedule: Schedule): plans.Plan => ({
  id: schedule.id,
  times: specs.timesOf(specOf(schedule)),
  jitterMs: specs.millis(specOf(schedule).jitter),
  catchUpMs: specs.millis(schedule.catchUpWindow),
});

export function specOf({ id, spec }: Schedule): NonNullable<Schedule['spec']> {
  if (!spec) throw new Error(`schedule ${id} has no spec`);
  return spec;
}

// A schedule as lists and events show it: without what may be large.
export const summaryOf = (schedule: Schedule): Schedule => ({ ...schedule, input: undefined, recentTicks: [] });

// What an execution is made from.
export const actionOf = ({ automationId, revision, input, labels, priority, timeParameter }: Schedule) => ({
  automationId,
  revision,
  input,
  labels,
  priority,
  timeParameter,
});
export type Action = ReturnType<typeof actionOf>;

const touched = (schedule: Schedule, now: Date): Schedule => ({ ...schedule, updateTime: now, version: schedule.version + 1 });

// What a caller wrote, with the defaults, once it has passed the checks that the contract cannot express.
function written(schedule: Schedule): Schedule {
  if (schedule.name.trim() === '') throw blank('schedule.name');
  if (schedule.automationId === '') throw blank('schedule.automationId');
  toBytes('automation', schedule.automationId, 'schedule.automationId');
  if (schedule.input) checkInput(schedule.input);
  const { seconds } = schedule.catchUpWindow ?? { seconds: CATCH_UP_SECONDS };
  return {
    ...schedule,
    overlap: schedule.overlap === Overlap.OVERLAP_UNSPECIFIED ? Overlap.SKIP : schedule.overlap,
    catchUpWindow: { seconds, nanos: 0 },
    pauseOnFailure: schedule.pauseOnFailure ?? false,
  };
}

function checkInput(input: NonNullable<Schedule['input']>): void {
  JSON.stringify(input, (_key, value: unknown) => {
    if (typeof value === 'number' && !Number.isFinite(value)) throw invalid('schedule.input', 'holds a number that JSON cannot express');
    return value;
  });
  if (Struct.encode(Struct.wrap(input)).finish().length > MAX_INPUT_BYTES) throw invalid('schedule.input', 'is larger than 1 MiB');
}

// The gateway drops JSON fields that it does not know, so whoever misspelled a required one is told those that it does.
const blank = (field: string): Fault =>
  fault('INVALID_ARGUMENT', 'FIELD_INVALID', `${field} must not be blank; the known fields are ${WRITABLE.join(', ')}`, {
    violations: [{ field, description: 'must not be blank' }],
    metadata: { fields: WRITABLE.join(',') },
  });
