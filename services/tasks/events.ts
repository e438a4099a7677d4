// events.ts: what is published when tasks change, and what is listened to.
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import { type Task, Task_State } from '#gen/millrace/tasks/v1/task.ts';
import { TaskEvent } from '#gen/millrace/tasks/v1/task_event.ts';
import type { Bus } from '#platform/bus.ts';
import type { Consumer } from '#platform/consumer.ts';
import type { Db } from '#platform/db.ts';
import type { Event } from '#platform/outbox.ts';
import { summaryOf, TASK_LABEL } from './task.ts';
import * as system from './task-system.ts';

// Who did it, and where.
export interface Actor {
  user: string;
  workspace: string;
}
type Verb = 'created' | 'updated' | 'assigned' | 'started' | 'completed' | 'reopened' | 'cancelled' | 'run' | 'deleted' | 'commented';

export const created = (task: Task, actor: Actor): Event => event('created', task, actor);

export const changed = (before: Task, after: Task, actor: Actor): Event => event(verbOf(before, after), after, actor);

export const commented = (task: Task, actor: Actor): Event => event('commented', task, actor);

// The last event of a task: a version beyond those of its changes, so that no consumer takes an older one for newer.
export const deleted = (task: Task, actor: Actor): Event => ({ ...event('deleted', task, actor), version: task.version + 1 });

function event(verb: Verb, task: Task, { user, workspace }: Actor): Event {
  const data = TaskEvent.encode({ task: summaryOf(task), workspaceId: workspace, actorId: user }).finish();
  return { type: `task.${verb}`, verb, subject: task.id, workspace, version: task.version, schema: 'millrace.tasks.v1.TaskEvent', data };
}

function verbOf(before: Task, after: Task): Verb {
  if (after.run?.executionId !== before.run?.executionId) return 'run';
  if (after.assigneeId !== before.assigneeId) return 'assigned';
  if (after.state === before.state) return 'updated';
  if (after.state === Task_State.IN_PROGRESS) return 'started';
  if (after.state === Task_State.PENDING) return 'reopened';
  return after.state === Task_State.COMPLETED ? 'completed' : 'cancelled';
}

// Tells the watchers of a workspace, after the commit, to look at a task. A notice may be lost: see watch.ts.
export const notice = (bus: Bus, workspace: string, taskId: string): void => bus.notify(`tasks.${workspace}`, taskId);

export function onNotice(bus: Bus, workspace: string, look: (taskId: string) => void): () => void {
  const text = new TextDecoder();
  return bus.onNotice(`tasks.${workspace}`, (data) => look(text.decode(data)));
}

// Executions have ended: the runs among them are due to be settled, which `wake` begins.
export const executionsEnded = (db: Db, wake: () => void): Consumer => ({
  name: 'tasks-executions',
  area: 'executions',
  types: ['execution.ended'],
  db,
  concerns: (event) => runsOf(event.data).length > 0,
  async handle(tx, { data }) {
    const ids = runsOf(data);
    const count = await system.checkNow(tx, ids);
    if (count > 0) tx.executionPromise.then(wake, () => undefined);
  },
});

// The executions of an event that run a task, by the label that they were started with.
const runsOf = (data: Uint8Array): string[] =>
  ExecutionEvent.decode(data).items.flatMap(({ execution }) => (execution?.labels[TASK_LABEL] ? [execution.id] : []));
