// store/runs.ts: the executions that tasks started, by workspace. The newest one of a task is read with it, by store/tasks.ts.

import type { TaskRun } from '#gen/millrace/tasks/v1/task.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';

const FIRST_CHECK_SECONDS = 2;
const CLAIM_SECONDS = 60; // longer than a call to executions may take

// Does work that starts a run, while no other user does for the same task: two of them would start two executions. The same user's
// calls start the same one. ABORTED / CONFLICT when another user is at it.
export async function withClaim<T>(db: Db, workspace: string, taskId: string, userId: string, work: () => Promise<T>): Promise<T> {
  const user = toBytes('user', userId);
  const claimed = (): Knex.QueryBuilder => db('tasks').where({ workspace: toBytes('workspace', workspace), id: toBytes('task', taskId) });
  const free = claimed().where((either) =>
    either.whereNull('run_until').orWhere('run_until', '<', db.raw('utc_timestamp(6)')).orWhere({ run_user: user }),
  );
  const count = await free.update({ run_user: user, run_until: db.raw('utc_timestamp(6) + interval ? second', [CLAIM_SECONDS]) });
  if (count === 0 && (await claimed().first('id'))) throw aborted(`task ${taskId} is being run by somebody else: try again`);
  try {
    return await work();
  } finally {
    await claimed().where({ run_user: user }).update({ run_until: null });
  }
}

// Keeps a new run, whose state is then asked for from time to time. False when it is kept already. Call it with the task locked.
export async function insert(tx: Tx, workspace: string, taskId: string, run: TaskRun, userId: string, now: Date): Promise<boolean> {
  const key = {
    execution: toBytes('execution', run.executionId),
    workspace: toBytes('workspace', workspace),
    task: toBytes('task', taskId),
  };
  if (await tx('task_runs').where(key).first('execution')) return false;
  await tx('task_runs').insert({
    ...key,
    user: toBytes('user', userId),
    ...moved(run),
    create_time: now,
    check_time: tx.raw('utc_timestamp(6) + interval ? second', [FIRST_CHECK_SECONDS]),
    checks: 0,
  });
  return true;
}

// Keeps how a run went on. One that has ended is not asked for again.
export async function save(tx: Tx, workspace: string, run: TaskRun, isSettled: boolean): Promise<void> {
  await tx('task_runs')
    .where({ execution: toBytes('execution', run.executionId), workspace: toBytes('workspace', workspace) })
    .update({ ...moved(run), ...(isSettled ? { check_time: null } : {}) });
}

const moved = (run: TaskRun) => ({
  status: run.status,
  output: run.output === undefined ? null : JSON.stringify(run.output),
  logs: run.logs,
  error: run.error,
});
