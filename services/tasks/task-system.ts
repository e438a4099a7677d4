// task-system.ts: what works across workspaces. Handlers may not import it. Only the database's clock decides what is due.
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

export interface DueRun {
  workspace: string;
  taskId: string;
  executionId: string;
  userId: string; // who ran it
}
interface Row {
  workspace: Buffer;
  task: Buffer;
  execution: Buffer;
  user: Buffer;
}

const MAX_PAUSE_SECONDS = 300;
const DELETIONS_KEPT_MINUTES = 60;

// Claims runs whose state is due to be asked for: each is due again after 4, 8, 16 … 300 seconds unless it is settled by then.
export async function claimDueRuns(db: Db, limit: number): Promise<DueRun[]> {
  return db.transaction(async (tx) => {
    const due = tx('task_runs').where('check_time', '<=', tx.raw('utc_timestamp(6)')).orderBy('check_time').limit(limit);
    const rows: Row[] = await due.select('workspace', 'task', 'execution', 'user').forUpdate().skipLocked();
    const executions = rows.map((row) => row.execution);
    await tx('task_runs')
      .whereIn('execution', executions)
      .update({
        checks: tx.raw('checks + 1'),
        check_time: tx.raw('utc_timestamp(6) + interval least(?, pow(2, least(checks, 10) + 1)) second', [MAX_PAUSE_SECONDS]),
      });
    return rows.map((row) => ({
      workspace: fromBytes('workspace', row.workspace),
      taskId: fromBytes('task', row.task),
      executionId: fromBytes('execution', row.execution),
      userId: fromBytes('user', row.user),
    }));
  });
}

// Makes the runs of these executions due, where there are such; answers how many.
export const checkNow = (tx: Tx, executionIds: readonly string[]): Promise<number> =>
  tx('task_runs')
    .whereIn(
      'execution',
      executionIds.map((id) => toBytes('execution', id)),
    )
    .whereNotNull('check_time')
    .update({ check_time: tx.raw('utc_timestamp(6)') });

export const forgetDeletions = (db: Db): Promise<number> =>
  db('task_deletions')
    .where('delete_time', '<', db.raw('utc_timestamp(6) - interval ? minute', [DELETIONS_KEPT_MINUTES]))
    .limit(1000)
    .delete();
