// schedule-system.ts: what works across workspaces. Handlers may not import it. Only the database's clock decides what is due.
import { type ScheduleTick_State as State, scheduleTick_StateFromJSON } from '#gen/millrace/schedules/v1/schedule.ts';
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Stop } from './overlap.ts';

export interface DueSchedule {
  workspace: string;
  id: string;
}
// A tick that is to be looked after.
export interface DueTick {
  workspace: string;
  scheduleId: string;
  id: string;
  state: State;
  origin: string; // tells apart ticks of the same time
  tickTime: Date;
  action: number;
  executionId: string | undefined;
  stop: Stop;
  isNew: boolean; // nothing was tried for it before
  isOld: boolean; // tried first so long ago that its key may be forgotten
}
interface TickRow {
  workspace: Buffer;
  schedule: Buffer;
  id: Buffer;
  state: string;
  origin: Buffer;
  tick_time: Date;
  action: number;
  execution: Buffer | null;
  stop: Stop;
  checks: number;
  is_old: number;
}

const MAX_PAUSE_SECONDS = 300;
const LEASE_SECONDS = 20; // longer than a call to executions may take
const FORGOTTEN_AT_ONCE = 1000;
const OTHERS_MS = 50;
const KEY_HOURS = 23; // executions know a key for 24
const TICK_COLUMNS = ['workspace', 'schedule', 'id', 'state', 'origin', 'tick_time', 'action', 'execution', 'stop', 'checks'];

// Locks the schedule whose next tick has been due for longest, among those that nobody else has locked.
export async function lockDue(tx: Tx): Promise<DueSchedule | undefined> {
  const row: { workspace: Buffer; id: Buffer } | undefined = await tx('schedules')
    .where('next_time', '<=', tx.raw('utc_timestamp(6)'))
    .orderBy('next_time')
    .forUpdate()
    .skipLocked()
    .first('workspace', 'id');
  return row && { workspace: fromBytes('workspace', row.workspace), id: fromBytes('schedule', row.id) };
}

// How long until a schedule or a tick is due, in milliseconds, but no longer than `atMost`. What is due already is somebody else's.
export async function pauseUntilDue(db: Db, table: 'schedules' | 'schedule_ticks', atMost: number): Promise<number> {
  const column = table === 'schedules' ? 'next_time' : 'check_time';
  const [[row]] = await db.raw('select timestampdiff(microsecond, utc_timestamp(6), min(??)) / 1000 as ms from ??', [column, table]);
  if (row.ms === null) return atMost;
  return row.ms > 0 ? Math.min(atMost, Math.ceil(Number(row.ms))) : OTHERS_MS;
}

// Claims ticks that are due to be looked after: each is due again after 4, 8, 16 … 300 seconds, or when a call that is under way must have
// ended, unless it is settled by then.
export async function claimDueTicks(db: Db, limit: number): Promise<DueTick[]> {
  return db.transaction(async (tx) => {
    const due = tx('schedule_ticks').where('check_time', '<=', tx.raw('utc_timestamp(6)')).orderBy('check_time').limit(limit);
    const old = tx.raw('coalesce(try_time < utc_timestamp(6) - interval ? hour, false) as is_old', [KEY_HOURS]);
    const rows: TickRow[] = await due
      .select([...TICK_COLUMNS, old])
      .forUpdate()
      .skipLocked();
    for (const { workspace, schedule, id, state } of rows) {
      const least = state === 'STARTING' ? LEASE_SECONDS : 0;
      const wait = tx.raw('utc_timestamp(6) + interval least(?, greatest(?, pow(2, least(checks, 10) + 1))) second', [
        MAX_PAUSE_SECONDS,
        least,
      ]);
      await tx('schedule_ticks')
        .where({ workspace, schedule, id })
        .update({
          checks: tx.raw('checks + 1'),
          check_time: wait,
          ...(state === 'STARTING' && { try_time: tx.raw('coalesce(try_time, utc_timestamp(6))') }),
        });
    }
    return rows.map(toTick);
  });
}

// Makes the ticks of these executions due to be looked after, where there are such; answers how many.
export const checkNow = (tx: Tx, executionIds: readonly string[]): Promise<number> =>
  tx('schedule_ticks')
    .whereIn(
      'execution',
      executionIds.map((id) => toBytes('execution', id)),
    )
    .whereNotNull('check_time')
    .update({ check_time: tx.raw('utc_timestamp(6)') });

// The schedules whose executions are made for a user.
export async function runFor(tx: Tx, userId: string): Promise<DueSchedule[]> {
  const rows: { workspace: Buffer; id: Buffer }[] = await tx('schedules')
    .where('run_as', toBytes('user', userId))
    .orderBy('id')
    .select('workspace', 'id');
  return rows.map(({ workspace, id }) => ({ workspace: fromBytes('workspace', workspace), id: fromBytes('schedule', id) }));
}

// Forgets ticks that ended so many days ago.
export async function forgetTicks(db: Db, days: number): Promise<void> {
  const old = () => db('schedule_ticks').where('end_time', '<', db.raw('utc_timestamp(6) - interval ? day', [days]));
  while ((await old().limit(FORGOTTEN_AT_ONCE).delete()) === FORGOTTEN_AT_ONCE);
}

const toTick = (row: TickRow): DueTick => ({
  workspace: fromBytes('workspace', row.workspace),
  scheduleId: fromBytes('schedule', row.schedule),
  id: fromBytes('tick', row.id),
  state: scheduleTick_StateFromJSON(row.state),
  origin: row.origin.toString('hex'),
  tickTime: row.tick_time,
  action: row.action,
  executionId: row.execution ? fromBytes('execution', row.execution) : undefined,
  stop: row.stop,
  isNew: row.checks === 0,
  isOld: row.is_old === 1,
});
