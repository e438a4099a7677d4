// store/comments.ts: remarks on tasks in the database, by workspace.

import type { TaskComment } from '#gen/millrace/tasks/v1/task_comment.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

interface Row {
  id: Buffer;
  task: Buffer;
  author: Buffer;
  text: string;
  create_time: Date;
}
const COLUMNS = ['id', 'task', 'author', 'text', 'create_time'];

export async function insert(tx: Tx, workspace: string, comment: TaskComment): Promise<void> {
  await tx('task_comments').insert({
    workspace: toBytes('workspace', workspace),
    task: toBytes('task', comment.taskId),
    id: toBytes('comment', comment.id),
    author: toBytes('user', comment.authorId),
    text: comment.text,
    create_time: comment.createTime,
  });
}

export async function get(db: Db, workspace: string, taskId: string, id: string): Promise<TaskComment> {
  const row: Row | undefined = await commentsOf(db, workspace, taskId).where('id', toBytes('comment', id)).first(COLUMNS);
  if (!row) throw notFound('comment', id);
  return toComment(row);
}

// Up to `limit` comments after the one named, the oldest first: ids sort by time.
export async function list(db: Db, workspace: string, taskId: string, after: string | undefined, limit: number): Promise<TaskComment[]> {
  const query = commentsOf(db, workspace, taskId).select(COLUMNS).orderBy('id').limit(limit);
  if (after) query.where('id', '>', toBytes('comment', after));
  const rows: Row[] = await query;
  return rows.map(toComment);
}

const commentsOf = (db: Db, workspace: string, taskId: string): Knex.QueryBuilder =>
  db('task_comments').where({ workspace: toBytes('workspace', workspace), task: toBytes('task', taskId, 'taskId') });

const toComment = (row: Row): TaskComment => ({
  id: fromBytes('comment', row.id),
  taskId: fromBytes('task', row.task),
  authorId: fromBytes('user', row.author),
  text: row.text,
  createTime: row.create_time,
});
