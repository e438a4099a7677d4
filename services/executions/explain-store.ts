// Reads where an execution stands and what stands before it.
import type { Pool, RowDataPacket } from '#platform/db.ts';
import { EVERYONE, refill } from './engine/gates.ts';
import { rows } from './engine/sql.ts';
import type { Lane, Place } from './explanation.ts';

export interface Standing {
  place: Place | undefined;
  lane: Lane;
  cancelReason: string | null;
}
interface History {
  cancel_reason: string | null;
  queue: string | null;
  state: string | null;
  max_running: number | null;
  rate: number | null;
  tokens: number | null;
  seconds: string | number | null;
  running: number;
  quota: number | null; // of what runs in the workspace
  in_workspace: number;
  now: Date;
}
interface Hold {
  workspace: Buffer;
  mode: string;
  reason: string;
}
interface Ready {
  lane: number;
  priority: number;
  tag: number;
  expire_time: Date;
}
interface Waiting {
  limit_key: string;
  seq: number;
  expire_time: Date;
}
interface Timer {
  due_time: Date;
  expire_time: Date;
}
interface Running {
  server: Buffer;
  started: number;
  deadline: Date;
  attempt: number;
}

const MOST = 10_001; // counted
const HOLDERS = 20;

// Undefined when there is no such execution in the workspace.
// `maxRunning`: of each workspace for which nothing else is set.
export async function standing(pool: Pool, workspace: Buffer, id: Buffer, maxRunning: number | null = null): Promise<Standing | undefined> {
  const own = `SELECT e.cancel_reason, l.queue, l.state, l.max_running, l.rate_per_second AS rate, o.tokens,
      TIMESTAMPDIFF(MICROSECOND, o.token_time, NOW(6)) / 1e6 AS seconds, NOW(6) AS now,
      IF(l.max_running IS NULL, 0, (SELECT COUNT(*) FROM running r JOIN lanes s ON s.lane = r.lane
        WHERE s.workspace = l.workspace AND s.queue = l.queue)) AS running,
      COALESCE((SELECT q.running FROM quotas q WHERE q.workspace = e.workspace), ?) AS quota,
      (SELECT COUNT(*) FROM running r WHERE r.workspace = e.workspace) AS in_workspace
    FROM executions e LEFT JOIN lanes l ON l.lane = e.lane
    LEFT JOIN lanes o ON o.workspace = l.workspace AND o.queue = l.queue AND o.selector = 'any' AND o.fairness_key = ''
    WHERE e.workspace = ? AND e.id = ?`;
  const [[history], [ready], [waiting], [timer], [running], holds] = (await rows(pool, [
    pool.format(own, [maxRunning, workspace, id]),
    pool.format('SELECT lane, priority, tag, expire_time FROM ready WHERE execution = ?', [id]),
    pool.format('SELECT limit_key, seq, expire_time FROM waiting WHERE execution = ?', [id]),
    pool.format('SELECT due_time, expire_time FROM timers WHERE execution = ?', [id]),
    pool.format('SELECT server, started, deadline, attempt FROM running WHERE execution = ?', [id]),
    pool.format('SELECT workspace, mode, reason FROM holds WHERE workspace IN (?)', [[workspace, EVERYONE]]),
  ])) as [[History?], [Ready?], [Waiting?], [Timer?], [Running?], Hold[]];
  if (!history) return undefined;
  const place = await placeOf(pool, id, ready, waiting, timer, running);
  return { place, lane: laneOf(history, holds), cancelReason: history.cancel_reason };
}

function laneOf(
  { queue, state, max_running, rate, tokens, seconds, running, now, quota, in_workspace }: History,
  holds: readonly Hold[],
): Lane {
  const left = rate === null ? 1 : refill({ tokens, seconds: Number(seconds ?? 0), rate });
  const hold = holds.find(({ mode }) => mode === 'STOPPED') ?? holds[0];
  return {
    queue: queue ?? 'default',
    state: state ?? 'ACTIVE',
    maxRunning: max_running,
    running: running,
    quota: quota === null ? null : { limit: quota, used: in_workspace },
    nextTime: left >= 1 ? null : new Date(now.getTime() + ((1 - left) / (rate ?? 1)) * 1000),
    halt: hold ? { mode: hold.mode, reason: hold.reason, isEverywhere: hold.workspace.equals(EVERYONE) } : null,
  };
}

async function placeOf(
  pool: Pool,
  id: Buffer,
  ready: Ready | undefined,
  waiting: Waiting | undefined,
  timer: Timer | undefined,
  running: Running | undefined,
): Promise<Place | undefined> {
  if (running) return { kind: 'running', ...running, started: running.started === 1 };
  if (ready) {
    const before = `SELECT 1 FROM ready WHERE lane = ? AND (priority < ? OR (priority = ? AND (tag < ? OR (tag = ? AND execution < ?))))`;
    const { lane, priority, tag } = ready;
    return { kind: 'ready', before: await count(pool, before, [lane, priority, priority, tag, tag, id]), expireTime: ready.expire_time };
  }
  if (waiting) return { kind: 'waiting', expireTime: waiting.expire_time, ...(await limitOf(pool, id, waiting)) };
  return timer ? { kind: 'timers', dueTime: timer.due_time, expireTime: timer.expire_time } : undefined;
}

async function limitOf(pool: Pool, id: Buffer, { limit_key: key, seq }: Waiting) {
  const before = 'SELECT 1 FROM waiting WHERE limit_key = ? AND (seq < ? OR (seq = ? AND execution < ?))';
  const [[limit], holders] = (await rows(pool, [
    pool.format('SELECT max, used FROM limits WHERE limit_key = ?', [key]),
    pool.format('SELECT execution FROM slots WHERE limit_key = ? ORDER BY execution LIMIT ?', [key, HOLDERS]),
  ])) as [[{ max: number; used: number }?], { execution: Buffer }[]];
  return {
    key,
    before: await count(pool, before, [key, seq, seq, id]),
    max: limit?.max ?? 0,
    used: limit?.used ?? 0,
    holders: holders.map(({ execution }) => execution),
  };
}

async function count(pool: Pool, select: string, values: unknown[]): Promise<number> {
  const sql = `SELECT COUNT(*) AS n FROM (${select} LIMIT ${MOST}) some`;
  const [[row]] = await pool.query<(RowDataPacket & { n: number })[]>(sql, values);
  return row?.n ?? 0;
}
