// follow.ts: makes the executions of claimed ticks and follows them to their end.
//
// The key of a tick's execution is made of the schedule and the tick's time, so that one tick makes one execution, whoever tries how often.
// The event `execution.ended` makes a tick due at once. Without it a tick is due from time to time, so a lost event only delays.
import { createHash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { Execution_State as Ended, Execution, type ExecutionError } from '#gen/millrace/executions/v1/execution.ts';
import type { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { ScheduleTick_State as State } from '#gen/millrace/schedules/v1/schedule.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Db } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { CLEARED } from './overlap.ts';
import { SCHEDULE_LABEL, TIME_LABEL } from './schedule.ts';
import * as system from './schedule-system.ts';
import { timed, type Worker } from './scheduler.ts';
import { beginWaiting, end } from './settle.ts';
import * as actions from './store/actions.ts';
import * as schedules from './store/schedules.ts';
import * as ticks from './store/ticks.ts';

export interface Deps {
  db: Db;
  log: Logger;
  executions: Pick<ClientOf<ExecutionServiceService>, 'createExecution' | 'getExecution' | 'cancelExecution'>;
}

const AT_ONCE = 20;
const SCOPES = ['executions.run', 'executions.read'];
const UNKNOWN = 'whether its execution was made is not known, and it is too late to ask again';
const REFUSALS: readonly status[] = [
  ...[status.INVALID_ARGUMENT, status.NOT_FOUND, status.ALREADY_EXISTS, status.PERMISSION_DENIED],
  ...[status.FAILED_PRECONDITION, status.OUT_OF_RANGE, status.UNIMPLEMENTED],
];
const ENDS: Partial<Record<Ended, State>> = {
  [Ended.SUCCEEDED]: State.SUCCEEDED,
  [Ended.FAILED]: State.FAILED,
  [Ended.CANCELLED]: State.CANCELLED,
  [Ended.TIMED_OUT]: State.TIMED_OUT,
  [Ended.SKIPPED]: State.SKIPPED,
};

export function followTicks(deps: Deps): Worker {
  const stopping = new AbortController();
  const work = async () => {
    while (!stopping.signal.aborted) {
      const due = await system.claimDueTicks(deps.db, AT_ONCE);
      await Promise.all(
        due.map((tick) => tend(deps, tick).catch((error) => deps.log.warn({ error, tick }, 'a tick is tried again later'))),
      );
      if (due.length === 0) return;
    }
  };
  return timed(deps, 'schedule_ticks', work, stopping);
}

function tend(deps: Deps, tick: system.DueTick): Promise<void> {
  if (tick.state === State.BUFFERED) return beginWaiting(deps.db, tick);
  return tick.state === State.STARTING ? start(deps, tick) : look(deps, tick);
}

async function start({ db, executions }: Deps, tick: system.DueTick): Promise<void> {
  const { workspace, scheduleId, id } = tick;
  if (tick.stop && tick.isNew) return end(db, tick, State.CANCELLED, CLEARED);
  if (tick.isOld) return end(db, tick, State.FAILED, UNKNOWN);
  const action = await actions.find(db, workspace, scheduleId, tick.action);
  if (!action) return;
  failpoint('schedules.start');
  const made = await executions
    .createExecution(
      { execution: executionOf(action, tick), requestId: keyOf(tick) },
      { actor: { user: action.runAsId, workspace, scopes: SCOPES } },
    )
    .catch((error: unknown) => error);
  failpoint('schedules.started');
  if (made instanceof Fault && REFUSALS.includes(made.code)) return end(db, tick, State.FAILED, made.message);
  if (made instanceof Error) return void (await ticks.explain(db, workspace, scheduleId, id, made.message));
  await db.transaction(async (tx) => {
    if (!(await schedules.find(tx, workspace, scheduleId))) return;
    const isFirst = await ticks.started(tx, workspace, scheduleId, id, (made as Execution).id);
    if (isFirst) await schedules.add(tx, workspace, scheduleId, { started: 1 });
  });
}

// Executions alone say how an execution stands.
async function look(deps: Deps, tick: system.DueTick): Promise<void> {
  const { db, executions } = deps;
  const user = await actions.findUser(db, tick.workspace, tick.scheduleId, tick.action);
  const id = tick.executionId;
  if (!user || !id) return;
  const options = { actor: { user, workspace: tick.workspace, scopes: SCOPES } };
  try {
    if (tick.stop) {
      const grace = tick.stop === 'KILL' ? { seconds: 0, nanos: 0 } : undefined;
      await executions.cancelExecution({ id, reason: `schedule ${tick.scheduleId}: ${CLEARED}`, grace }, options).catch(unlessEnded);
    }
    const { state, error } = await executions.getExecution({ id }, options);
    const ended = ENDS[state];
    if (ended !== undefined) await end(db, tick, ended, textOf(error));
  } catch (error) {
    if (!(error instanceof Fault && error.reason === 'RESOURCE_NOT_FOUND')) throw error;
    await end(db, tick, State.FAILED, 'its execution is no longer kept: its end is unknown');
  }
}

export const keyOf = ({ scheduleId, origin, tickTime }: Pick<system.DueTick, 'scheduleId' | 'origin' | 'tickTime'>): string =>
  `schedule-${createHash('sha256').update(`${scheduleId} ${origin} ${tickTime.toISOString()}`).digest('hex')}`;

function executionOf(action: NonNullable<Awaited<ReturnType<typeof actions.find>>>, { scheduleId, tickTime }: system.DueTick): Execution {
  const time = tickTime.toISOString();
  return Execution.fromPartial({
    automationId: action.automationId,
    revision: action.revision,
    input: action.timeParameter ? { ...action.input, [action.timeParameter]: time } : action.input,
    labels: { ...action.labels, [SCHEDULE_LABEL]: scheduleId, [TIME_LABEL]: time },
    priority: action.priority,
  });
}

const textOf = (error: ExecutionError | undefined): string => (error ? [error.type, error.message].filter(Boolean).join(': ') : '');

function unlessEnded(error: unknown): void {
  if (!(error instanceof Fault && error.code === status.FAILED_PRECONDITION)) throw error;
}
