// events.ts: what is published when schedules change and tick, and what is listened to.
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import type { Schedule, ScheduleTick } from '#gen/millrace/schedules/v1/schedule.ts';
import { ScheduleEvent } from '#gen/millrace/schedules/v1/schedule_event.ts';
import type { Consumer } from '#platform/consumer.ts';
import type { Db } from '#platform/db.ts';
import type { Event } from '#platform/outbox.ts';
import { SCHEDULE_LABEL, summaryOf } from './schedule.ts';
import * as system from './schedule-system.ts';

// Who did it, and where. Nobody when the schedule did it itself.
export interface Actor {
  user: string;
  workspace: string;
}
type Verb = 'created' | 'updated' | 'paused' | 'resumed' | 'deleted' | 'ticked';

export const created = (schedule: Schedule, actor: Actor): Event => event('created', schedule, actor);
export const updated = (schedule: Schedule, actor: Actor): Event => event('updated', schedule, actor);
export const paused = (schedule: Schedule, actor: Actor): Event => event('paused', schedule, actor);
export const resumed = (schedule: Schedule, actor: Actor): Event => event('resumed', schedule, actor);
export const ticked = (schedule: Schedule, tick: ScheduleTick, actor: Actor): Event => event('ticked', schedule, actor, tick);

// The last event of a schedule: a version beyond those of its changes, so that no consumer takes an older one for newer.
export const deleted = (schedule: Schedule, actor: Actor): Event => ({
  ...event('deleted', schedule, actor),
  version: schedule.version + 1,
});

function event(verb: Verb, schedule: Schedule, { user, workspace }: Actor, tick?: ScheduleTick): Event {
  const data = ScheduleEvent.encode({ schedule: summaryOf(schedule), workspaceId: workspace, actorId: user, tick }).finish();
  const { id, version } = schedule;
  return { type: `schedule.${verb}`, verb, subject: id, workspace, version, schema: 'millrace.schedules.v1.ScheduleEvent', data };
}

// Executions have ended: the ticks among them are due to be settled, which `wake` begins.
export const executionsEnded = (db: Db, wake: () => void): Consumer => ({
  name: 'schedules-executions',
  area: 'executions',
  types: ['execution.ended'],
  db,
  concerns: (event) => ticksOf(event.data).length > 0,
  async handle(tx, { data }) {
    const count = await system.checkNow(tx, ticksOf(data));
    if (count > 0) tx.executionPromise.then(wake, () => undefined);
  },
});

// The executions of an event that a schedule made, by the label that they were started with.
const ticksOf = (data: Uint8Array): string[] =>
  ExecutionEvent.decode(data).items.flatMap(({ execution }) => (execution?.labels[SCHEDULE_LABEL] ? [execution.id] : []));
