// store/schedules.ts: schedules in the database. Every function takes the workspace and neither answers nor touches what belongs to another.
import {
  type Schedule,
  ScheduleCounts,
  type Schedule_State as State,
  schedule_OverlapFromJSON,
  schedule_OverlapToJSON,
  schedule_StateFromJSON,
  schedule_StateToJSON,
} from '#gen/millrace/schedules/v1/schedule.ts';
import { ScheduleSpec } from '#gen/millrace/schedules/v1/spec.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Kept } from '../schedule.ts';
import * as actions from './actions.ts';

interface Row extends actions.Row, Counts {
  id: Buffer;
  name: string;
  description: string;
  action: number;
  spec: string;
  overlap: string;
  catch_up_seconds: number;
  pause_on_failure: number;
  state: string;
  pause_reason: string;
  tick_time: Date | null;
  next_time: Date | null;
  creator: Buffer;
  create_time: Date;
  update_time: Date;
  version: number;
}
interface Counts {
  started: number;
  succeeded: number;
  failed: number;
  skipped: number;
  missed: number;
  buffered: number;
  running: number;
}
export interface Filter {
  states: readonly State[]; // empty: any
  automationId: string; // empty: any
}
// What is added to the counts of a schedule.
export type Counted = Partial<Record<'started' | 'succeeded' | 'failed' | 'skipped' | 'missed', number>>;

const COLUMNS = [
  ...['s.id', 's.name', 's.description', 's.action', 's.spec', 's.overlap', 's.catch_up_seconds', 's.pause_on_failure', 's.state'],
  ...['s.pause_reason', 's.tick_time', 's.next_time', 's.started', 's.succeeded', 's.failed', 's.skipped', 's.missed', 's.creator'],
  ...['s.create_time', 's.update_time', 's.version'],
  ...actions.SUMMARY.map((column) => `a.${column}`),
];
const WHOLE = [...COLUMNS, 'a.input'];

const schedulesOf = (db: Db, workspace: string): Knex.QueryBuilder =>
  db({ s: 'schedules' })
    .join({ a: 'schedule_actions' }, { 'a.workspace': 's.workspace', 'a.schedule': 's.id', 'a.number': 's.action' })
    .where('s.workspace', toBytes('workspace', workspace));

const live = (db: Db, states: readonly string[], name: string): Knex.QueryBuilder =>
  db({ k: 'schedule_ticks' })
    .count('*')
    .whereRaw('k.schedule = s.id')
    .whereIn('k.state', [...states])
    .as(name); // prettier-ignore

const counted = (db: Db) => [live(db, ['BUFFERED'], 'buffered'), live(db, ['STARTING', 'RUNNING'], 'running')];

// The database's clock, which alone decides what is due.
export async function clock(db: Db): Promise<Date> {
  const [[{ now }]] = await db.raw('select utc_timestamp(6) as now');
  return now;
}

export const count = async (db: Db, workspace: string): Promise<number> =>
  Number((await db('schedules').where('workspace', toBytes('workspace', workspace)).count({ count: '*' }))[0]?.count);

export async function insert(tx: Tx, workspace: string, kept: Kept): Promise<void> {
  const { schedule } = kept;
  await tx('schedules').insert({
    workspace: toBytes('workspace', workspace),
    id: toBytes('schedule', schedule.id),
    creator: toBytes('user', schedule.creatorId),
    create_time: schedule.createTime,
    ...changeable(kept),
  });
  await actions.insert(tx, workspace, kept);
}

export async function get(db: Db, workspace: string, id: string, field = 'id'): Promise<Kept> {
  const row: Row | undefined = await schedulesOf(db, workspace)
    .where('s.id', toBytes('schedule', id, field))
    .first([...WHOLE, ...counted(db)]);
  if (!row) throw notFound('schedule', id);
  return toKept(row);
}

// Up to `limit` summaries before the one named, the newest first: ids sort by time.
export async function list(db: Db, workspace: string, filter: Filter, before: string | undefined, limit: number): Promise<Schedule[]> {
  const query = schedulesOf(db, workspace)
    .select([...COLUMNS, ...counted(db)])
    .orderBy('s.id', 'desc')
    .limit(limit);
  if (filter.states.length > 0) query.whereIn('s.state', filter.states.map(schedule_StateToJSON));
  if (filter.automationId) query.where('s.automation', toBytes('automation', filter.automationId, 'automationId'));
  if (before) query.where('s.id', '<', toBytes('schedule', before));
  const rows: Row[] = await query;
  return rows.map((row) => toKept(row).schedule);
}

// The schedule, whose ticks nobody else can decide before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string): Promise<Kept> {
  const found = await find(tx, workspace, id);
  if (!found) throw notFound('schedule', id);
  return found;
}

// The same; undefined when it is gone.
export async function find(tx: Tx, workspace: string, id: string): Promise<Kept | undefined> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('schedule', id) };
  if (!(await tx('schedules').where(key).forUpdate().first('id'))) return undefined;
  const row: Row = await schedulesOf(tx, workspace)
    .where('s.id', key.id)
    .first([...WHOLE, ...counted(tx)]); // prettier-ignore
  return toKept(row);
}

export async function save(tx: Tx, workspace: string, before: Kept, after: Kept): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('schedule', after.schedule.id), version: before.schedule.version };
  const changed = await tx('schedules').where(key).update(changeable(after));
  if (changed !== 1) throw aborted(`schedule ${after.schedule.id} changed at the same time: read it again`);
  if (after.action !== before.action) await actions.insert(tx, workspace, after);
}

export async function add(tx: Tx, workspace: string, id: string, counts: Counted): Promise<void> {
  const more = Object.entries(counts).filter(([, by]) => by !== 0);
  if (more.length === 0) return;
  await tx('schedules')
    .where({ workspace: toBytes('workspace', workspace), id: toBytes('schedule', id) })
    .update(Object.fromEntries(more.map(([name, by]) => [name, tx.raw('?? + ?', [name, by])])));
}

// Its ticks go with it, by their foreign key.
export const remove = (tx: Tx, workspace: string, id: string): Promise<number> =>
  tx('schedules')
    .where({ workspace: toBytes('workspace', workspace), id: toBytes('schedule', id) })
    .delete(); // prettier-ignore

const changeable = ({ schedule, next, action }: Kept) => ({
  name: schedule.name,
  description: schedule.description,
  automation: toBytes('automation', schedule.automationId),
  action,
  run_as: toBytes('user', schedule.runAsId),
  spec: JSON.stringify(ScheduleSpec.toJSON(schedule.spec as ScheduleSpec)),
  overlap: schedule_OverlapToJSON(schedule.overlap),
  catch_up_seconds: schedule.catchUpWindow?.seconds,
  pause_on_failure: schedule.pauseOnFailure ?? false,
  state: schedule_StateToJSON(schedule.state),
  pause_reason: schedule.pauseReason,
  tick_time: next?.tickTime ?? null,
  next_time: next?.dueTime ?? null,
  update_time: schedule.updateTime,
  version: schedule.version,
});

const toKept = (row: Row): Kept => ({
  action: row.action,
  next: row.tick_time && row.next_time ? { tickTime: row.tick_time, dueTime: row.next_time } : undefined,
  schedule: {
    ...actions.toAction(row),
    id: fromBytes('schedule', row.id),
    name: row.name,
    description: row.description,
    spec: ScheduleSpec.fromJSON(JSON.parse(row.spec)),
    overlap: schedule_OverlapFromJSON(row.overlap),
    catchUpWindow: { seconds: row.catch_up_seconds, nanos: 0 },
    pauseOnFailure: row.pause_on_failure === 1,
    state: schedule_StateFromJSON(row.state),
    pauseReason: row.pause_reason,
    creatorId: fromBytes('user', row.creator),
    runAsId: fromBytes('user', row.run_as),
    nextTimes: row.tick_time ? [row.tick_time] : [],
    recentTicks: [],
    counts: ScheduleCounts.fromPartial({
      started: row.started,
      succeeded: row.succeeded,
      failed: row.failed,
      skipped: row.skipped,
      missed: row.missed,
      buffered: Number(row.buffered),
      running: Number(row.running),
    }),
    createTime: row.create_time,
    updateTime: row.update_time,
    version: row.version,
  },
});
