// store/tasks.ts: tasks in the database. Every function takes the workspace and neither answers nor touches what belongs to another.

import {
  type Task,
  task_PriorityFromJSON,
  task_PriorityToJSON,
  task_StateFromJSON,
  task_StateToJSON,
} from '#gen/millrace/tasks/v1/task.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import * as search from '../search.ts';

export interface Row {
  id: Buffer;
  title: string;
  description: string;
  state: string;
  priority: string;
  assignee: Buffer | null;
  creator: Buffer;
  due_time: Date | null;
  automation: Buffer | null;
  create_time: Date;
  update_time: Date;
  end_time: Date | null;
  version: number;
  run_execution: Buffer | null; // null when the task was never run; then the rest of the run is, too
  run_status: string | null;
  run_error: string | null;
  input?: string | null; // these three are left out of lists: they may be large
  run_output?: string | null;
  run_logs?: string | null;
}

export const SUMMARY = [
  ...['t.id', 't.title', 't.description', 't.state', 't.priority', 't.assignee', 't.creator', 't.due_time', 't.automation'],
  ...['t.create_time', 't.update_time', 't.end_time', 't.version'],
  ...['r.execution as run_execution', 'r.status as run_status', 'r.error as run_error'],
];
const WHOLE = [...SUMMARY, 't.input', 'r.output as run_output', 'r.logs as run_logs'];

// The workspace's tasks `t`, each beside its last run `r`.
export const tasksOf = (db: Db, workspace: string): Knex.QueryBuilder =>
  db({ t: 'tasks' }).leftJoin({ r: 'task_runs' }, 'r.execution', 't.execution').where('t.workspace', toBytes('workspace', workspace));

export async function insert(tx: Tx, workspace: string, task: Task): Promise<void> {
  const key = toBytes('workspace', workspace);
  const id = toBytes('task', task.id);
  await tx('tasks').insert({
    workspace: key,
    id,
    creator: toBytes('user', task.creatorId),
    create_time: task.createTime,
    ...changeable(task),
  });
  await tx('tasks_search').insert({ workspace: key, task: id, words: wordsOf(task) });
}

export async function get(db: Db, workspace: string, id: string, field = 'id'): Promise<Task> {
  const row: Row | undefined = await tasksOf(db, workspace)
    .where('t.id', toBytes('task', id, field))
    .first(WHOLE);
  if (!row) throw notFound('task', id);
  return toTask(row);
}

// Those of the tasks that exist.
export async function find(db: Db, workspace: string, ids: readonly string[]): Promise<Task[]> {
  const keys = ids.map((id) => toBytes('task', id));
  const rows: Row[] = await tasksOf(db, workspace).whereIn('t.id', keys).select(WHOLE);
  return rows.map(toTask);
}

// The task, which nobody else can change before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string, field = 'id'): Promise<Task> {
  const row: Row | undefined = await tasksOf(tx, workspace)
    .where('t.id', toBytes('task', id, field))
    .forUpdate()
    .first(WHOLE);
  if (!row) throw notFound('task', id);
  return toTask(row);
}

export async function save(tx: Tx, workspace: string, before: Task, after: Task): Promise<void> {
  const key = toBytes('workspace', workspace);
  const id = toBytes('task', after.id);
  const count = await tx('tasks').where({ workspace: key, id, version: before.version }).update(changeable(after));
  if (count !== 1) throw aborted(`task ${after.id} changed at the same time: read it again`);
  if (wordsOf(before) !== wordsOf(after))
    await tx('tasks_search')
      .where({ workspace: key, task: id })
      .update({ words: wordsOf(after) });
}

// Comments and runs go with the task, by their foreign keys.
export async function remove(tx: Tx, workspace: string, id: string, now: Date): Promise<void> {
  const key = toBytes('workspace', workspace);
  const task = toBytes('task', id);
  await tx('tasks').where({ workspace: key, id: task }).delete();
  await tx('tasks_search').where({ workspace: key, task }).delete();
  await tx('task_deletions').insert({ workspace: key, task, delete_time: now });
}

const wordsOf = (task: Task): string => search.document(task.title, task.description);

const changeable = (task: Task) => ({
  title: task.title,
  description: task.description,
  state: task_StateToJSON(task.state),
  priority: task_PriorityToJSON(task.priority),
  assignee: task.assigneeId ? toBytes('user', task.assigneeId, 'assigneeId') : null,
  due_time: task.dueTime ?? null,
  automation: task.automationId ? toBytes('automation', task.automationId, 'automationId') : null,
  input: task.input === undefined ? null : JSON.stringify(task.input),
  execution: task.run ? toBytes('execution', task.run.executionId) : null,
  update_time: task.updateTime,
  end_time: task.endTime ?? null,
  version: task.version,
});

export const toTask = (row: Row): Task => ({
  id: fromBytes('task', row.id),
  title: row.title,
  description: row.description,
  state: task_StateFromJSON(row.state),
  priority: task_PriorityFromJSON(row.priority),
  assigneeId: row.assignee ? fromBytes('user', row.assignee) : undefined,
  creatorId: fromBytes('user', row.creator),
  dueTime: row.due_time ?? undefined,
  automationId: row.automation ? fromBytes('automation', row.automation) : undefined,
  input: parse(row.input) as Task['input'],
  run: row.run_execution
    ? {
        executionId: fromBytes('execution', row.run_execution),
        status: row.run_status ?? '',
        output: parse(row.run_output),
        logs: row.run_logs ?? '',
        error: row.run_error ?? '',
      }
    : undefined,
  createTime: row.create_time,
  updateTime: row.update_time,
  endTime: row.end_time ?? undefined,
  version: row.version,
});

const parse = (json: string | null | undefined): unknown => (json ? JSON.parse(json) : undefined);
