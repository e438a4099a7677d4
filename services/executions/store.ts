// Reads for callers. Where an open execution stands is told by the hot tables, read in the same statement as its row.
import type { Pool, RowDataPacket, Tx } from '#platform/db.ts';
import { halted } from './engine/gates.ts';
import { type AttemptRow, FINAL, type Row, type StateName } from './execution.ts';

interface Named {
  workspace: Buffer;
  id: Buffer;
}
export interface Filter {
  states: readonly StateName[];
  automation: Buffer | undefined;
  from: Date | undefined;
  to: Date | undefined;
  labels?: readonly [string, string][];
  before: Buffer | undefined; // only those with a lower id
  limit: number;
}

const BODY = 'e.input, e.output, EXISTS (SELECT 1 FROM results x WHERE x.execution = e.id) AS has_results';
const NO_BODY = 'NULL AS input, NULL AS output, 0 AS has_results';
const columns = (body: string): string => `e.id, e.workspace, e.automation, e.revision, e.state, e.version, e.creator, e.retry_of, e.labels,
  e.priority, e.limit_key, e.error, e.attempt_count, e.schedule_time, e.create_time, e.start_time, e.end_time, e.payload_deleted_time, ${body},
  r.state AS running_state, IF(r.execution IS NULL, e.progress_fraction, r.progress_fraction) AS progress_fraction,
  IF(r.execution IS NULL, e.progress_message, r.progress_message) AS progress_message, t.kind AS timer, t.due_time,
  IF(e.end_time IS NULL AND r.execution IS NULL AND t.execution IS NULL, CASE
    WHEN ${halted('e.workspace')} THEN 'MAINTENANCE'
    WHEN e.limit_key IS NOT NULL AND EXISTS (SELECT 1 FROM waiting w WHERE w.execution = e.id) THEN 'CONCURRENCY_LIMIT'
    WHEN (SELECT l.state FROM lanes l WHERE l.lane = e.lane) = 'PAUSED' THEN 'QUEUE_PAUSED' END, NULL) AS blocked,
  IF(e.end_time IS NULL, (SELECT l.labels FROM lanes l WHERE l.lane = e.lane), NULL) AS selector`;
const FROM = 'FROM executions e LEFT JOIN running r ON r.execution = e.id LEFT JOIN timers t ON t.execution = e.id';

type Read = Row & RowDataPacket & { has_results: number };

// Each execution, or undefined where there is none in the workspace.
export async function getMany(pool: Pool, wanted: readonly Named[]): Promise<(Row | undefined)[]> {
  const ids = [...new Map(wanted.map(({ id }) => [id.toString('hex'), id])).values()];
  const [rows] = await pool.query<Read[]>(`SELECT ${columns(BODY)} ${FROM} WHERE e.id IN (?)`, [ids]);
  const found = new Map(rows.map((row) => [row.id.toString('hex'), row]));
  return wanted.map(({ workspace, id }) => {
    const row = found.get(id.toString('hex'));
    return row?.workspace.equals(workspace) ? row : undefined;
  });
}

// What is too large for the row itself.
export async function withResults(pool: Pool, workspace: Buffer, row: Row): Promise<Row> {
  if (!(row as Read).has_results) return row;
  const sql = 'SELECT x.kind, x.body FROM results x JOIN executions e ON e.id = x.execution WHERE e.workspace = ? AND e.id = ?';
  const [rows] = await pool.query<(RowDataPacket & { kind: 'INPUT' | 'OUTPUT'; body: string })[]>(sql, [workspace, row.id]);
  const bodyOf = (kind: 'INPUT' | 'OUTPUT') => rows.find((one) => one.kind === kind)?.body ?? null;
  return { ...row, input: row.input ?? bodyOf('INPUT'), output: row.output ?? bodyOf('OUTPUT') };
}

// Its result was read: what is to be erased after that is erased a minute later, when the answer has surely come.
export const used = (pool: Pool, id: Buffer): Promise<unknown> =>
  pool.query(
    `UPDATE payloads SET due_time = LEAST(COALESCE(due_time, NOW(6) + INTERVAL 1 MINUTE), NOW(6) + INTERVAL 1 MINUTE)
    WHERE execution = ? AND on_read`,
    [id],
  );

// The newest first, without input and output.
export async function list(pool: Pool, workspace: Buffer, lanes: readonly number[], filter: Filter): Promise<Row[]> {
  const ids = filter.states.length === 0 ? candidates(pool, workspace, filter) : byState(pool, workspace, lanes, filter);
  const [found] = await pool.query<(RowDataPacket & { id: Buffer })[]>(ids);
  return rowsOf(
    pool,
    workspace,
    found.map(({ id }) => id),
  );
}

// Those of the workspace, the newest first, without input and output.
export async function rowsOf(pool: Pool, workspace: Buffer, ids: readonly Buffer[]): Promise<Row[]> {
  if (ids.length === 0) return [];
  const sql = `SELECT ${columns(NO_BODY)} ${FROM} WHERE e.workspace = ? AND e.id IN (?) ORDER BY e.id DESC`;
  const [rows] = await pool.query<Read[]>(sql, [workspace, ids]);
  return rows;
}

// Left to itself the server reads and sorts all executions of a small workspace for each page but the first.
const candidates = (pool: Pool, workspace: Buffer, filter: Filter): string =>
  `SELECT e.id FROM executions e FORCE INDEX (${filter.automation ? 'by_automation' : 'by_workspace'})
    ${pool.format('WHERE e.workspace = ?', [workspace])}${conditions(pool, filter)}
    ORDER BY e.id DESC LIMIT ${filter.limit}`;

// Open executions are found where they stand, ended ones by their state: neither reads the history.
function byState(pool: Pool, workspace: Buffer, lanes: readonly number[], filter: Filter): string {
  const has = (...states: StateName[]): StateName[] => states.filter((state) => filter.states.includes(state));
  const parts: string[] = [];
  const add = (from: string, values: unknown[]) =>
    parts.push(`(${pool.format(`SELECT e.id ${from}`, values)}${conditions(pool, filter)} ORDER BY e.id DESC LIMIT ${filter.limit})`);
  const standing = (table: string) => `FROM ${table} h JOIN executions e ON e.id = h.execution WHERE e.workspace = ?`;
  const running = has('RUNNING', 'CANCELLING');
  if (running.length > 0) add(`${standing('running')} AND h.workspace = ? AND h.state IN (?)`, [workspace, workspace, running]);
  const timers = has('SCHEDULED', 'RETRYING', 'PAUSED').map((state) => TIMER[state]);
  const inLanes = lanes.length > 0 ? lanes : [0]; // no lane has the number 0
  if (timers.length > 0) add(`${standing('timers')} AND h.lane IN (?) AND h.kind IN (?)`, [workspace, inLanes, timers]);
  if (has('QUEUED').length > 0) {
    add(`${standing('ready')} AND h.lane IN (?)`, [workspace, inLanes]);
    add(`${standing('waiting')} AND h.lane IN (?)`, [workspace, inLanes]);
    add(`${standing('timers')} AND h.lane IN (?) AND h.kind = 'WAIT'`, [workspace, inLanes]);
  }
  // Left to itself the server reads a page of a long history from the newest execution on, instead of from where the page begins.
  for (const state of has(...FINAL))
    add('FROM executions e FORCE INDEX (by_state) WHERE e.state = ? AND e.workspace = ?', [state, workspace]);
  return `${parts.join(' UNION ')} ORDER BY id DESC LIMIT ${filter.limit}`;
}

const TIMER: Partial<Record<StateName, string>> = { SCHEDULED: 'START', RETRYING: 'RETRY', PAUSED: 'PAUSE' };

// The id begins with the time it was made at; the margin is for clocks that differ.
export function conditions(pool: Pool, { automation, from, to, before, labels = [] }: Omit<Filter, 'states' | 'limit'>): string {
  const parts: string[] = [];
  const and = (sql: string, ...values: unknown[]) => parts.push(pool.format(` AND ${sql}`, values));
  if (automation) and('e.automation = ?', automation);
  if (before) and('e.id < ?', before);
  if (from) and('e.create_time >= ? AND e.id >= ?', from, lowestId(from.getTime() - MARGIN_MS));
  if (to) and('e.create_time < ? AND e.id < ?', to, lowestId(to.getTime() + MARGIN_MS));
  for (const [key, value] of labels) and('JSON_UNQUOTE(JSON_EXTRACT(e.labels, ?)) = ?', `$.${JSON.stringify(key)}`, value);
  return parts.join('');
}

const MARGIN_MS = 3_600_000;

export function lowestId(time: number): Buffer {
  const id = Buffer.alloc(16);
  id.writeUIntBE(Math.min(Math.max(time, 0), 2 ** 48 - 1), 0, 6);
  return id;
}

const STANDING = ['state', 'automation', 'revision', 'create_time', 'schedule_time', 'running_state', 'timer'] as const;

// Where one stands now, in the caller's transaction.
export const standing = (tx: Tx, workspace: Buffer, id: Buffer): Promise<Pick<Row, (typeof STANDING)[number]> | undefined> =>
  tx('executions as e')
    .leftJoin('running as r', 'r.execution', 'e.id')
    .leftJoin('timers as t', 't.execution', 'e.id')
    .select('e.state', 'e.automation', 'e.revision', 'e.create_time', 'e.schedule_time', 'r.state as running_state', 't.kind as timer')
    .where({ 'e.workspace': workspace, 'e.id': id })
    .first();

// The attempts that started, the first first.
export async function attempts(pool: Pool, workspace: Buffer, id: Buffer): Promise<AttemptRow[]> {
  const sql = `SELECT a.number, a.state, a.server, a.sandbox_tier, a.isolation, a.limits, a.start_time, a.end_time, a.error, a.cpu_seconds,
      a.peak_memory_kib, a.log_bytes, a.log_count,
      (SELECT COALESCE(MAX(c.first_seq + c.count), 0) FROM log_chunks c WHERE c.execution = a.execution AND c.attempt = a.number) AS line_count
    FROM attempts a JOIN executions e ON e.id = a.execution WHERE e.workspace = ? AND e.id = ? ORDER BY a.number`;
  const [rows] = await pool.query<(RowDataPacket & AttemptRow)[]>(sql, [workspace, id]);
  return rows;
}

// How many of a workspace wait: a quota is about those.
export async function countWaiting(pool: Pool, workspace: Buffer): Promise<number> {
  const all = await lanes(pool, workspace);
  if (all.length === 0) return 0;
  const counts = ['ready', 'waiting', 'timers'].map((table) => pool.format(`(SELECT COUNT(*) FROM ${table} WHERE lane IN (?))`, [all]));
  const [[row]] = await pool.query<(RowDataPacket & { n: number })[]>(`SELECT ${counts.join(' + ')} AS n`);
  return row?.n ?? 0;
}

// The lanes of a workspace.
export async function lanes(pool: Pool, workspace: Buffer): Promise<number[]> {
  const [rows] = await pool.query<(RowDataPacket & { lane: number })[]>('SELECT lane FROM lanes WHERE workspace = ?', [workspace]);
  return rows.map(({ lane }) => lane);
}
