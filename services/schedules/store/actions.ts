// store/actions.ts: what schedules run, as it was meant at each tick, by workspace.
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Action, Kept } from '../schedule.ts';

export interface Row {
  automation: Buffer;
  revision: number;
  input?: string | null; // left out of lists: it may be large
  labels: string;
  priority: number | null;
  time_parameter: string;
  run_as: Buffer;
}

export const SUMMARY = ['automation', 'revision', 'labels', 'priority', 'time_parameter', 'run_as'];

export const insert = (tx: Tx, workspace: string, { schedule, action }: Kept): Promise<unknown> =>
  tx('schedule_actions').insert({
    workspace: toBytes('workspace', workspace),
    schedule: toBytes('schedule', schedule.id),
    number: action,
    automation: toBytes('automation', schedule.automationId),
    revision: schedule.revision,
    input: schedule.input === undefined ? null : JSON.stringify(schedule.input),
    labels: JSON.stringify(schedule.labels),
    priority: schedule.priority ?? null,
    time_parameter: schedule.timeParameter,
    run_as: toBytes('user', schedule.runAsId),
  });

// Undefined when the schedule is gone.
export async function find(
  db: Db,
  workspace: string,
  scheduleId: string,
  number: number,
): Promise<(Action & { runAsId: string }) | undefined> {
  const key = { workspace: toBytes('workspace', workspace), schedule: toBytes('schedule', scheduleId), number };
  const row: Row | undefined = await db('schedule_actions')
    .where(key)
    .first([...SUMMARY, 'input']);
  return row && { ...toAction(row), runAsId: fromBytes('user', row.run_as) };
}

// Whom a tick's execution is made for. Undefined when the schedule is gone.
export async function findUser(db: Db, workspace: string, scheduleId: string, number: number): Promise<string | undefined> {
  const key = { workspace: toBytes('workspace', workspace), schedule: toBytes('schedule', scheduleId), number };
  const row: Pick<Row, 'run_as'> | undefined = await db('schedule_actions').where(key).first('run_as');
  return row && fromBytes('user', row.run_as);
}

export const toAction = (row: Row): Action => ({
  automationId: fromBytes('automation', row.automation),
  revision: row.revision,
  input: row.input ? JSON.parse(row.input) : undefined,
  labels: JSON.parse(row.labels),
  priority: row.priority ?? undefined,
  timeParameter: row.time_parameter,
});
