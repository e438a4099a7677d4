// task.ts: what a task is and how it may change. Nothing here reads a clock, makes an id or knows where tasks are kept.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { Struct } from '#gen/google/protobuf/struct.ts';
import type { ErrorReason } from '#gen/millrace/tasks/v1/error_reason.ts';
import { type Task, Task_Priority, Task_State, type TaskRun } from '#gen/millrace/tasks/v1/task.ts';
import type { TaskComment } from '#gen/millrace/tasks/v1/task_comment.ts';
import { type Fault, fault, invalid, reasonsOf } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';

const faults = reasonsOf<keyof typeof ErrorReason>('tasks');

// What an update may name, as in a field mask. The assignee is set at first and then by a verb of its own.
export const UPDATABLE = ['title', 'description', 'priority', 'due_time', 'automation_id', 'input'] as const;
export type Updatable = (typeof UPDATABLE)[number];

// The label that an execution carries which runs a task.
export const TASK_LABEL = 'task';

const WRITABLE = ['title', 'description', 'priority', 'assigneeId', 'dueTime', 'automationId', 'input'];
const MAX_INPUT_BYTES = 1024 * 1024; // as protobuf
const RUN_ENDED = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'];

export const hasEnded = (task: Task): boolean => task.state === Task_State.COMPLETED || task.state === Task_State.CANCELLED;

export const hasRunEnded = (run: TaskRun): boolean => RUN_ENDED.includes(run.status);

export function accept(draft: Task, creatorId: string, id: string, now: Date): Task {
  if (draft.assigneeId) toBytes('user', draft.assigneeId, 'task.assigneeId');
  return {
    ...written(draft),
    id,
    state: Task_State.PENDING,
    assigneeId: draft.assigneeId || undefined,
    creatorId,
    run: undefined,
    createTime: now,
    updateTime: now,
    endTime: undefined,
    version: 1,
  };
}

export function update(task: Task, draft: Task, fields: readonly Updatable[], now: Date): Task {
  refuseEnded(task);
  const has = (field: Updatable) => fields.includes(field);
  const next = written({
    ...task,
    ...(has('title') && { title: draft.title }),
    ...(has('description') && { description: draft.description }),
    ...(has('priority') && { priority: draft.priority }),
    ...(has('due_time') && { dueTime: draft.dueTime }),
    ...(has('automation_id') && { automationId: draft.automationId }),
    ...(has('input') && { input: draft.input }),
  });
  return changed(task, next, now);
}

export function assign(task: Task, assigneeId: string, now: Date): Task {
  if (assigneeId) toBytes('user', assigneeId, 'assigneeId');
  refuseEnded(task);
  return changed(task, { assigneeId: assigneeId || undefined }, now);
}

export function start(task: Task, now: Date): Task {
  refuseEnded(task);
  return changed(task, { state: Task_State.IN_PROGRESS }, now);
}

export function complete(task: Task, now: Date): Task {
  if (task.state === Task_State.COMPLETED) return task;
  refuseEnded(task);
  return changed(task, { state: Task_State.COMPLETED, endTime: now }, now);
}

export function reopen(task: Task, now: Date): Task {
  if (!hasEnded(task)) return task;
  return changed(task, { state: Task_State.PENDING, endTime: undefined }, now);
}

export function cancel(task: Task, now: Date): Task {
  if (task.state === Task_State.CANCELLED) return task;
  refuseEnded(task);
  return changed(task, { state: Task_State.CANCELLED, endTime: now }, now);
}

export interface NextRun {
  automationId: string;
  input: Task['input'];
  requestId: string; // the same for every try, so that a repeated call starts one execution
}

// What running the task would start; undefined while its last run goes on.
export function nextRun(task: Task): NextRun | undefined {
  refuseEnded(task);
  if (task.run && !hasRunEnded(task.run)) return undefined;
  const { id, automationId, input } = task;
  if (!automationId)
    throw faults.failedPrecondition('AUTOMATION_UNBOUND', `no automation is bound to task ${id}: set automationId first`, { id });
  // The run before it counts the runs. What is run belongs to it: an edit between two tries makes another request.
  const what = JSON.stringify([id, task.run?.executionId, automationId, input]);
  return { automationId, input, requestId: `task-${createHash('sha256').update(what).digest('hex')}` };
}

// A run was accepted. A task that was ended meanwhile stays so, and says that it was run.
export function runAccepted(task: Task, run: TaskRun, now: Date): Task {
  return changed(task, { run, state: hasEnded(task) ? task.state : Task_State.IN_PROGRESS }, now);
}

// The last run went on or ended. Its success completes the task.
export function runMoved(task: Task, run: TaskRun, now: Date): Task {
  const isDone = run.status === 'SUCCEEDED' && !hasEnded(task);
  return changed(task, isDone ? { run, state: Task_State.COMPLETED, endTime: now } : { run }, now);
}

// A task as lists and events show it: without what may be large.
export const summaryOf = (task: Task): Task => ({
  ...task,
  input: undefined,
  run: task.run && { ...task.run, output: undefined, logs: '' },
});

export function acceptComment(text: string, taskId: string, authorId: string, id: string, now: Date): TaskComment {
  if (text.trim() === '') throw blank('text', ['text']);
  return { id, taskId, authorId, text, createTime: now };
}

// A change that changes nothing answers the same task: no new version, no event.
function changed(task: Task, patch: Partial<Task>, now: Date): Task {
  const next = { ...task, ...patch };
  return isDeepStrictEqual(next, task) ? task : { ...next, updateTime: now, version: task.version + 1 };
}

// What a caller wrote, with the defaults, once it has passed the checks that the contract cannot express.
function written(task: Task): Task {
  if (task.title.trim() === '') throw blank('task.title', WRITABLE);
  if (task.automationId) toBytes('automation', task.automationId, 'task.automationId');
  if (task.input) checkInput(task.input);
  return {
    ...task,
    priority: task.priority === Task_Priority.PRIORITY_UNSPECIFIED ? Task_Priority.NORMAL : task.priority,
    automationId: task.automationId || undefined,
  };
}

function checkInput(input: NonNullable<Task['input']>): void {
  JSON.stringify(input, (_key, value: unknown) => {
    if (typeof value === 'number' && !Number.isFinite(value)) throw invalid('task.input', 'holds a number that JSON cannot express');
    return value;
  });
  if (Struct.encode(Struct.wrap(input)).finish().length > MAX_INPUT_BYTES) throw invalid('task.input', 'is larger than 1 MiB');
}

function refuseEnded(task: Task): void {
  if (!hasEnded(task)) return;
  throw faults.failedPrecondition('TASK_ENDED', `task ${task.id} has ended: reopen it first`, { id: task.id });
}

// The gateway drops JSON fields that it does not know, so whoever misspelled a required one is told those that it does.
const blank = (field: string, known: readonly string[]): Fault =>
  fault('INVALID_ARGUMENT', 'FIELD_INVALID', `${field} must not be blank; the known fields are ${known.join(', ')}`, {
    violations: [{ field, description: 'must not be blank' }],
    metadata: { fields: known.join(',') },
  });
