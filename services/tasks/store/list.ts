// store/list.ts: pages of tasks by filter and order, and what a watcher missed.

import { type Task, type Task_State, task_StateToJSON } from '#gen/millrace/tasks/v1/task.ts';
import type { Db, Knex } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import * as search from '../search.ts';
import { type Row, SUMMARY, tasksOf, toTask } from './tasks.ts';

export interface Filter {
  states: readonly Task_State[]; // empty: any
  assigneeId: string; // empty: anybody; `-`: nobody
  text: string; // empty: any
}
export interface Order {
  by: 'create_time' | 'update_time' | 'due_time';
  isDescending: boolean;
}
// The last task of a page: its ordering time in milliseconds, null when it has none, and its id.
export interface Position {
  at: number | null;
  id: string;
}

// `create_time`, `due_time desc` and the like. Empty means the newest first.
export function orderOf(text: string): Order {
  const [by = '', direction] = (text || 'create_time desc').split(' ');
  return { by: by as Order['by'], isDescending: direction === 'desc' };
}

// Up to `limit` summaries after the position.
export async function list(
  db: Db,
  workspace: string,
  filter: Filter,
  order: Order,
  after: Position | undefined,
  limit: number,
): Promise<Task[]> {
  const page = () =>
    matching(tasksOf(db, workspace), workspace, filter).select(SUMMARY).orderBy(`t.${order.by}`, direction).orderBy('t.id', direction);
  const direction = order.isDescending ? 'desc' : 'asc';
  const beyond = order.isDescending ? '<' : '>';
  const rows: Row[] = [];
  if (after?.at !== null) {
    const timed = page().whereNotNull(`t.${order.by}`).limit(limit);
    if (after) beyondPosition(timed, `t.${order.by}`, beyond, new Date(after.at), after.id);
    rows.push(...(await timed));
  }
  if (order.by === 'due_time' && rows.length < limit) {
    // Tasks without a due time come last in either direction: another stretch of the same index.
    const untimed = page()
      .whereNull('t.due_time')
      .limit(limit - rows.length);
    if (after?.at === null) untimed.where('t.id', beyond, toBytes('task', after.id));
    rows.push(...(await untimed));
  }
  return rows.map(toTask);
}

export const positionOf = (task: Task, { by }: Order): Position => {
  const time = { create_time: task.createTime, update_time: task.updateTime, due_time: task.dueTime }[by];
  return { at: time?.getTime() ?? null, id: task.id };
};

// The first condition is the one that an index can use.
function beyondPosition(query: Knex.QueryBuilder, column: string, beyond: '<' | '>', at: Date, id: string): void {
  query.where(column, `${beyond}=`, at).where((either) => either.where(column, beyond, at).orWhere('t.id', beyond, toBytes('task', id)));
}

function matching(query: Knex.QueryBuilder, workspace: string, { states, assigneeId, text }: Filter): Knex.QueryBuilder {
  if (states.length > 0) query.whereIn('t.state', states.map(task_StateToJSON));
  if (assigneeId === '-') query.whereNull('t.assignee');
  else if (assigneeId !== '') query.where('t.assignee', toBytes('user', assigneeId, 'assigneeId'));
  if (text === '') return query;
  const words = search.expression(text);
  if (words === undefined) return query.whereRaw('false');
  return query.whereIn('t.id', (found: Knex.QueryBuilder) => {
    found.select('task').from('tasks_search').where('workspace', toBytes('workspace', workspace));
    found.whereRaw('match (words) against (? in boolean mode)', words);
  });
}

// The tasks that changed in the last seconds with their versions, and those that were deleted, without one.
export async function changedWithin(db: Db, workspace: string, seconds: number): Promise<Map<string, number | undefined>> {
  const key = toBytes('workspace', workspace);
  const since = db.raw('utc_timestamp(6) - interval ? second', [seconds]);
  const changed: { id: Buffer; version: number }[] = await db('tasks')
    .where('workspace', key)
    .where('update_time', '>=', since)
    .select('id', 'version');
  const deleted: { task: Buffer }[] = await db('task_deletions').where('workspace', key).where('delete_time', '>=', since).select('task');
  const versions = new Map<string, number | undefined>();
  for (const { id, version } of changed) versions.set(fromBytes('task', id), version);
  for (const { task } of deleted) versions.set(fromBytes('task', task), undefined);
  return versions;
}
