// Timers: what is due goes to ready, or behind its limit; waiting that has expired ends. Several dispatchers share the work by SKIP LOCKED.
import type { Pool, PoolConnection } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { repeat } from '#platform/pause.ts';
import { selectTold, type Told } from '../engine/ended.ts';
import { type Entrant, enter, findNoPlace } from '../engine/enter.ts';
import { type Ending, endWaiting, type Left } from '../engine/leave.ts';
import { expired, skipped } from '../engine/machine.ts';
import { lockLimits } from '../engine/slots.ts';
import type { LoadSpecs } from '../engine/specs.ts';
import { format, hex, rows } from '../engine/sql.ts';
import * as metrics from './metrics.ts';
import { transaction, unlessAway } from './transaction.ts';

interface Deps {
  pool: Pool;
  log: Logger;
  specs: LoadSpecs;
  due(executions: readonly Buffer[], lanes: ReadonlySet<number>): void;
  crowded(keys: readonly string[]): void; // of limits where older ones shall make room
  ended(left: Left): void;
}
export interface Timers {
  wake(): void; // something is due soon
  stop(): Promise<void>;
}
interface Timer extends Entrant {
  due_time: string;
  kind: string;
  late: number; // microseconds
}

const LONGEST_MS = 250;
const EXPIRY_MS = 1000;
const PAGE = 256;
const COLUMNS = `CAST(due_time AS CHAR) AS due_time, kind, execution, lane, priority, limit_key, attempt, losses, expire_time,
  TIMESTAMPDIFF(MICROSECOND, due_time, NOW(6)) AS late`;
const STARTS = "kind IN ('START', 'RETRY', 'WAIT')";
const DUE_KEYS = `SELECT DISTINCT limit_key FROM (SELECT limit_key FROM timers WHERE ${STARTS} AND due_time <= NOW(6) ORDER BY due_time LIMIT ${PAGE}) page`;
const NEXT = `SELECT TIMESTAMPDIFF(MICROSECOND, NOW(6), due_time) AS wait FROM timers WHERE ${STARTS} ORDER BY due_time LIMIT 1`;

export function openTimers(deps: Deps): Timers {
  const { log } = deps;
  let timer: NodeJS.Timeout | undefined;

  async function take(): Promise<void> {
    const wait = await due(deps);
    clearTimeout(timer);
    if (wait < LONGEST_MS) timer = setTimeout(loop.wake, Math.max(0, wait)); // else the loop comes back by itself
  }
  const loop = repeat(LONGEST_MS, () => unlessAway(take()), log);
  const expiry = repeat(EXPIRY_MS, () => unlessAway(expire(deps)), log);
  return {
    wake: loop.wake,
    async stop() {
      clearTimeout(timer);
      await Promise.all([loop.stop(), expiry.stop()]);
      clearTimeout(timer);
    },
  };
}

// Takes what is due; answers in how many milliseconds the next one is.
async function due({ pool, due: told, ended, crowded }: Deps): Promise<number> {
  for (;;) {
    const [keys, [next]] = (await rows(pool, [DUE_KEYS, NEXT])) as [{ limit_key: string | null }[], { wait: number }[]];
    if (keys.length === 0) return (next?.wait ?? Number.POSITIVE_INFINITY) / 1000;
    const limited = keys.flatMap(({ limit_key }) => limit_key ?? []);
    const { taken, left, full } = await transaction(pool, (connection) => start(connection, limited));
    if (taken.length === 0) return LONGEST_MS; // another dispatcher has them
    failpoint('timers.after_commit');
    for (const { late } of taken) metrics.timerLateness.observe(late / 1e6);
    const lanes = new Set(taken.map(({ lane }) => lane));
    told(taken.map(executionOf), lanes);
    if (left.ended.size > 0) ended(left);
    crowded(full);
  }
}

// Lock order: limits, timers; the slots are taken as accepting does.
async function start(connection: PoolConnection, keys: readonly string[]): Promise<Started> {
  const limits = await lockLimits(connection, keys);
  const limited = keys.length > 0 ? format(' OR limit_key IN (?)', [keys]) : '';
  const select = `SELECT ${COLUMNS} FROM timers WHERE ${STARTS} AND due_time <= NOW(6) AND (limit_key IS NULL${limited})
    ORDER BY due_time, kind, execution LIMIT ${PAGE} FOR UPDATE SKIP LOCKED`;
  const [taken = []] = await rows<[Timer[]]>(connection, [select]);
  if (taken.length === 0) return { taken, left: NONE, full: [] };
  failpoint('timers.locked');
  const dropped = new Set(findNoPlace(limits, taken, ({ kind }) => kind === 'START'));
  const entering = taken.filter((one) => !dropped.has(one));
  await rows(connection, [...enter(limits, entering), ...entering.map(removal)]);
  const endings = [...dropped].map(({ execution }): Ending => ({ execution, to: 'SKIPPED', error: skipped() }));
  const left = endings.length > 0 ? await endWaiting(connection, endings) : NONE;
  failpoint('timers.before_commit');
  const full = [...limits.values()].filter(({ policy }) => policy === 'CANCEL_OLD').map(({ limit_key }) => limit_key);
  return { taken, left, full };
}

interface Started {
  taken: Timer[];
  left: Left; // that found no place and do not wait
  full: string[]; // keys whose older ones shall make room
}
const NONE: Left = { ended: new Set(), lanes: new Set() };

const executionOf = ({ execution }: { execution: Buffer }): Buffer => execution;
const removal = ({ due_time, kind, execution }: Timer): string =>
  format('DELETE FROM timers WHERE due_time = ? AND kind = ? AND execution = ?', [due_time, kind, execution]);

// What waited for too long, wherever it waits.
async function expire({ pool, specs, ended }: Deps): Promise<void> {
  const selects = ['ready', 'waiting', 'timers'].map(
    (table) => `SELECT execution, expire_time FROM ${table} WHERE expire_time <= NOW(6) LIMIT ${PAGE}`,
  );
  const found = (await rows<{ execution: Buffer; expire_time: Date }[][]>(pool, selects)).flat().slice(0, PAGE);
  if (found.length === 0) return;
  const [told = []] = await rows<[Told[]]>(pool, [selectTold(found.map(executionOf))]);
  const spec = await specs(told);
  const times = new Map(found.map(({ execution, expire_time }) => [hex(execution), expire_time]));
  const endings = told.map((row): Ending => {
    const base = Math.max(row.create_time.getTime(), row.schedule_time?.getTime() ?? 0);
    const toClose = base + (spec(row)?.scheduleToCloseMs ?? 0);
    const isToStart = (times.get(hex(row.id))?.getTime() ?? 0) < toClose;
    return { execution: row.id, to: 'TIMED_OUT', error: expired(isToStart ? 'ScheduleToStartTimeout' : 'ScheduleToCloseTimeout') };
  });
  failpoint('expire.before_commit');
  const left = await transaction(pool, (connection) => endWaiting(connection, endings));
  failpoint('expire.after_commit');
  metrics.expired.inc({ where: 'waiting' }, left.ended.size);
  ended(left);
}
