// store/ticks.ts: ticks in the database, by workspace. Their states are decided under the lock of their schedule.
import {
  ScheduleTick_Cause as Cause,
  type Schedule_Overlap as Overlap,
  type ScheduleTick,
  ScheduleTick_State as State,
  schedule_OverlapFromJSON,
  schedule_OverlapToJSON,
  scheduleTick_CauseFromJSON,
  scheduleTick_CauseToJSON,
  scheduleTick_StateFromJSON,
  scheduleTick_StateToJSON,
} from '#gen/millrace/schedules/v1/schedule.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Stop } from '../overlap.ts';

interface Row {
  schedule: Buffer;
  id: Buffer;
  tick_time: Date;
  due_time: Date;
  cause: string;
  state: string;
  overlap: string;
  count: number;
  reason: string;
  execution: Buffer | null;
  create_time: Date;
  start_time: Date | null;
  end_time: Date | null;
}
export interface NewTick extends ScheduleTick {
  action: number; // of the schedule's actions, which it runs
  backfillId: string; // empty unless a backfill made it
  stop: Stop;
}
// A tick that is not final.
export interface Live {
  id: string;
  state: State;
  cause: Cause;
  dueTime: Date;
}
export interface Filter {
  states: readonly State[]; // empty: any
  backfillId: string; // empty: any
}
export interface Position {
  at: number; // due time in milliseconds
  id: string;
}

const COLUMNS = [
  ...['schedule', 'id', 'tick_time', 'due_time', 'cause', 'state', 'overlap', 'count', 'reason', 'execution', 'create_time'],
  ...['start_time', 'end_time'],
];
const OF_SPEC = Buffer.alloc(16);
const OPEN = [State.BUFFERED, State.STARTING, State.RUNNING];
const LONGEST_REASON = 1000;
const RECHECK_SECONDS = 300; // a buffered tick that was forgotten

export const isFinal = (state: State): boolean => !(OPEN as readonly State[]).includes(state);

const ticksOf = (db: Db, workspace: string, scheduleId: string): Knex.QueryBuilder =>
  db('schedule_ticks').where({ workspace: toBytes('workspace', workspace), schedule: toBytes('schedule', scheduleId, 'scheduleId') });

export async function insert(tx: Tx, workspace: string, ticks: readonly NewTick[]): Promise<void> {
  if (ticks.length === 0) return;
  await tx('schedule_ticks').insert(
    ticks.map((tick) => ({
      workspace: toBytes('workspace', workspace),
      schedule: toBytes('schedule', tick.scheduleId),
      id: toBytes('tick', tick.id),
      origin: originOf(tick),
      tick_time: tick.tickTime,
      due_time: tick.dueTime,
      cause: scheduleTick_CauseToJSON(tick.cause),
      overlap: schedule_OverlapToJSON(tick.overlap),
      action: tick.action,
      count: tick.count,
      stop: tick.stop,
      create_time: tick.createTime,
      checks: 0,
      ...stateOf(tx, tick.state, tick.reason),
    })),
  );
}

export async function get(db: Db, workspace: string, scheduleId: string, id: string): Promise<ScheduleTick> {
  const row: Row | undefined = await ticksOf(db, workspace, scheduleId).where('id', toBytes('tick', id)).first(COLUMNS);
  if (!row) throw notFound('tick', id);
  return toTick(row);
}

// Up to `limit` ticks after the position, the last due first.
export async function list(
  db: Db,
  workspace: string,
  scheduleId: string,
  { states, backfillId }: Filter,
  after: Position | undefined,
  limit: number,
): Promise<ScheduleTick[]> {
  const query = ticksOf(db, workspace, scheduleId).select(COLUMNS).orderBy('due_time', 'desc').orderBy('id', 'desc').limit(limit);
  if (states.length > 0) query.whereIn('state', states.map(scheduleTick_StateToJSON));
  if (backfillId) query.where('origin', toBytes('backfill', backfillId, 'backfillId'));
  if (after) {
    const at = new Date(after.at);
    query.where('due_time', '<=', at).where((either) => either.where('due_time', '<', at).orWhere('id', '<', toBytes('tick', after.id)));
  }
  const rows: Row[] = await query;
  return rows.map(toTick);
}

export const positionOf = ({ dueTime, id }: ScheduleTick): Position => ({ at: (dueTime as Date).getTime(), id });

// Those of these times of the spec that have been claimed.
export async function claimedTimes(tx: Tx, workspace: string, scheduleId: string, times: readonly Date[]): Promise<Set<number>> {
  const rows: { tick_time: Date }[] = await ticksOf(tx, workspace, scheduleId)
    .where('origin', OF_SPEC)
    .whereIn('tick_time', [...times])
    .select('tick_time');
  return new Set(rows.map((row) => row.tick_time.getTime()));
}

// What a backfill made.
export async function madeBy(db: Db, workspace: string, scheduleId: string, backfillId: string) {
  const states: { state: string; count: number }[] = await ticksOf(db, workspace, scheduleId)
    .where('origin', toBytes('backfill', backfillId))
    .groupBy('state')
    .select('state')
    .count({ count: '*' });
  const sum = (rows: typeof states) => rows.reduce((total, { count }) => total + Number(count), 0);
  return { tickCount: sum(states), skippedCount: sum(states.filter(({ state }) => state === 'SKIPPED')) };
}

// The ticks of a locked schedule that are not final, in the order in which they are due.
export async function live(tx: Tx, workspace: string, scheduleId: string): Promise<Live[]> {
  const rows: Pick<Row, 'id' | 'state' | 'cause' | 'due_time'>[] = await ticksOf(tx, workspace, scheduleId)
    .whereIn('state', OPEN.map(scheduleTick_StateToJSON))
    .orderBy('due_time')
    .orderBy('id')
    .select('id', 'state', 'cause', 'due_time');
  return rows.map((row) => ({
    id: fromBytes('tick', row.id),
    state: scheduleTick_StateFromJSON(row.state),
    cause: scheduleTick_CauseFromJSON(row.cause),
    dueTime: row.due_time,
  }));
}

// Moves a tick on, unless it is final or in another state than expected. Answers whether it did.
export async function move(
  tx: Tx,
  workspace: string,
  scheduleId: string,
  id: string,
  from: readonly State[],
  to: State,
  reason = '',
): Promise<boolean> {
  const count = await ticksOf(tx, workspace, scheduleId)
    .where('id', toBytes('tick', id))
    .whereIn('state', from.map(scheduleTick_StateToJSON))
    .update({ ...stateOf(tx, to, reason), checks: 0 });
  return count === 1;
}

// A tick's execution is accepted.
export async function started(tx: Tx, workspace: string, scheduleId: string, id: string, executionId: string): Promise<boolean> {
  const count = await ticksOf(tx, workspace, scheduleId)
    .where({ id: toBytes('tick', id), state: 'STARTING' })
    .update({
      ...stateOf(tx, State.RUNNING, ''),
      execution: toBytes('execution', executionId),
      start_time: tx.raw('utc_timestamp(6)'),
      checks: 0,
    });
  return count === 1;
}

// The execution of a tick is to end, now. One that is cancelled may still be killed.
export const stop = (tx: Tx, workspace: string, scheduleId: string, id: string, how: Stop): Promise<number> =>
  ticksOf(tx, workspace, scheduleId)
    .where('id', toBytes('tick', id))
    .whereNotIn('stop', [how, 'KILL'])
    .update({ stop: how, check_time: tx.raw('utc_timestamp(6)') });

// Why a tick is not started yet. It is tried again after 2, 4, 8 … 64 seconds.
export const explain = (db: Db, workspace: string, scheduleId: string, id: string, reason: string): Promise<number> =>
  ticksOf(db, workspace, scheduleId)
    .where({ id: toBytes('tick', id), state: 'STARTING' })
    .update({
      reason: reason.slice(0, LONGEST_REASON),
      check_time: db.raw('utc_timestamp(6) + interval pow(2, least(checks, 6)) second'),
    });

function stateOf(tx: Tx, state: State, reason: string) {
  const now = tx.raw('utc_timestamp(6)');
  const check = {
    [State.BUFFERED]: tx.raw('utc_timestamp(6) + interval ? second', [RECHECK_SECONDS]),
    [State.STARTING]: now,
    [State.RUNNING]: tx.raw('if(length(stop) > 0, utc_timestamp(6), utc_timestamp(6) + interval 2 second)'),
  } as Partial<Record<State, Knex.Raw>>;
  return {
    state: scheduleTick_StateToJSON(state),
    reason: reason.slice(0, LONGEST_REASON),
    check_time: check[state] ?? null,
    end_time: isFinal(state) ? now : null,
  };
}

const originOf = ({ cause, id, backfillId }: NewTick): Buffer => {
  if (cause === Cause.SPEC) return OF_SPEC;
  return cause === Cause.BACKFILL ? toBytes('backfill', backfillId) : toBytes('tick', id);
};

const toTick = (row: Row): ScheduleTick => ({
  id: fromBytes('tick', row.id),
  scheduleId: fromBytes('schedule', row.schedule),
  tickTime: row.tick_time,
  dueTime: row.due_time,
  cause: scheduleTick_CauseFromJSON(row.cause),
  state: scheduleTick_StateFromJSON(row.state),
  executionId: row.execution ? fromBytes('execution', row.execution) : undefined,
  reason: row.reason,
  overlap: schedule_OverlapFromJSON(row.overlap) as Overlap,
  count: row.count,
  createTime: row.create_time,
  startTime: row.start_time ?? undefined,
  endTime: row.end_time ?? undefined,
});
