// How executions leave running: to a final state, to the backoff of a retry, or back to ready. The caller has locked their rows in running (the
// fence), decides by machine.ts, adds what else it writes, and commits. Lock order: running, limits, slots, waiting, ready, timers, executions.
import type { Db } from '#platform/db.ts';
import { endedSql, selectTold, type Told } from './ended.ts';
import type { Claimed, Situation, Verdict } from './machine.ts';
import { giveOn, lockLimits, READY, readyOf } from './slots.ts';
import type { LoadSpecs } from './specs.ts';
import { type Connection, format, hex, insert, rows, sorted } from './sql.ts';

// A row of running, locked.
export interface Running {
  execution: Buffer;
  workspace: Buffer;
  claim_id: Buffer;
  attempt: number;
  losses: number;
  server: Buffer;
  lane: number;
  priority: number;
  limit_key: string | null;
  state: 'RUNNING' | 'CANCELLING';
  started: number;
  claim_time: Date;
  expire_time: Date; // schedule-to-close
  line_count: number;
  now: Date; // the database's, when the row was locked
}
export interface Start {
  time: Date;
  tier: number;
  isolation: string;
  limits: readonly string[];
}
export interface Usage {
  cpuSeconds: number | null;
  peakMemoryKib: number | null;
  logBytes: number | null;
  logCount: number | null; // null: nobody has counted
  logSha256: string | null;
  droppedBytes: number | null;
}
export interface Leave {
  row: Running;
  told: Told;
  verdict: Verdict;
  start?: Start | undefined; // when it becomes known only now
  endTime: Date;
  usage?: Usage | undefined;
}
export interface Context {
  told: Told;
  situation: Situation;
}
export type Contexts = ReadonlyMap<string, Context>; // by the execution's id in hexadecimal

const LARGE_BYTES = 16 * 1024; // a larger output stands in results
const NO_USAGE: Usage = { cpuSeconds: null, peakMemoryKib: null, logBytes: null, logCount: null, logSha256: null, droppedBytes: null };

export const RUNNING = `execution, workspace, claim_id, attempt, losses, server, lane, priority, limit_key, state, started, claim_time, expire_time,
  line_count, NOW(6) AS now`;

export const lockRunning = (executions: readonly Buffer[]): string =>
  format(`SELECT ${RUNNING} FROM running WHERE execution IN (?) ORDER BY execution FOR UPDATE`, [
    [...executions].sort((a, b) => Buffer.compare(a, b)),
  ]);

export const claimedOf = ({ state, attempt, losses, started }: Running): Claimed => ({ state, attempt, losses, started: started === 1 });

// What decides about executions that leave. `told` are their rows, when the caller has read them since it locked.
export async function contextsOf(
  connection: Connection,
  load: LoadSpecs,
  leaving: readonly Running[],
  told?: readonly Told[],
): Promise<Contexts> {
  if (leaving.length === 0) return new Map();
  const ids = leaving.map(({ execution }) => execution);
  const later = leaving.filter(({ attempt }) => attempt > 1).map(({ execution }) => execution);
  const history = told ?? (await rows<[Told[]]>(connection, [selectTold(ids)]))[0];
  const [counts = []] = later.length > 0 ? await rows<[{ execution: Buffer; n: number }[]]>(connection, [countLost(later)]) : [];
  const specs = await load(history);
  const lost = new Map(counts.map(({ execution, n }) => [hex(execution), n]));
  const found = new Map(history.map((row) => [hex(row.id), row]));
  return new Map(
    leaving.flatMap((row): [string, Context][] => {
      const one = found.get(hex(row.execution));
      if (!one) return [];
      const leftMs = row.expire_time.getTime() - row.now.getTime();
      const policy = specs(one)?.policy ?? NO_RETRY;
      return [
        [hex(row.execution), { told: one, situation: { policy, leftMs, lost: lost.get(hex(row.execution)) ?? 0, random: Math.random() } }],
      ];
    }),
  );
}

const countLost = (ids: readonly Buffer[]): string =>
  format("SELECT execution, COUNT(*) AS n FROM attempts WHERE execution IN (?) AND state = 'LOST' GROUP BY execution", [ids]);

const NO_RETRY = { maxAttempts: 1, initialMs: 0, coefficient: 1, maxMs: 0, nonRetryable: new Set<string>(), onLost: 'FAIL' as const };

// The statements that make them leave, and the lanes to ring after the commit.
export async function finish(
  connection: Connection,
  db: Db,
  leaves: readonly Leave[],
): Promise<{ statements: string[]; lanes: Set<number> }> {
  const inOrder = [...leaves].sort((a, b) => Buffer.compare(a.row.execution, b.row.execution));
  const limits = await lockLimits(connection, slotsOf(inOrder).keys());
  const given = await giveOn(connection, limits, slotsOf(inOrder));
  const back = inOrder.flatMap(({ row, verdict }) => (verdict.to === 'QUEUED' ? [{ ...row, losses: verdict.losses }] : []));
  const gone = inOrder.map(rowAfter);
  const statements = [
    ...given.statements,
    ...insert('ready', READY, back.map(readyOf)),
    ...inOrder.flatMap(timer),
    ...insert('attempts', ATTEMPT, inOrder.filter(isNew).map(attemptOf)),
    ...inOrder.flatMap(attemptEnd),
    ...update(gone),
    ...insert('results', 'execution, kind, body', gone.filter(({ output }) => isLarge(output)).map(({ after, output }) => [after.id, 'OUTPUT', output])),
    ...endedSql(db, gone.filter(({ isEnded }) => isEnded).map(({ after, output }) => ({ ...after, output: isLarge(output) ? null : output }))),
    ...sorted(inOrder.map(({ row }) => row)).map(({ execution }) => format('DELETE FROM running WHERE execution = ?', [execution])),
  ]; // biome-ignore format: a list of statements
  return { statements, lanes: new Set([...given.lanes, ...back.map(({ lane }) => lane)]) };
}

// `ready` implies that the slot is held: what goes back there keeps it.
function slotsOf(leaves: readonly Leave[]): Map<string, Buffer[]> {
  const freed = new Map<string, Buffer[]>();
  for (const { row, verdict } of leaves) {
    if (row.limit_key !== null && verdict.to !== 'QUEUED') freed.set(row.limit_key, [...(freed.get(row.limit_key) ?? []), row.execution]);
  }
  return freed;
}

function timer({ row, verdict }: Leave): string[] {
  if (verdict.to !== 'RETRYING') return [];
  const columns = 'due_time, kind, execution, lane, priority, limit_key, attempt, losses, expire_time';
  return [
    format(`INSERT INTO timers (${columns}) VALUES (NOW(6) + INTERVAL ? MICROSECOND, 'RETRY', ?, ?, ?, ?, ?, 0, ?)`, [
      verdict.inMs * 1000,
      row.execution,
      row.lane,
      row.priority,
      row.limit_key,
      row.attempt + 1,
      row.expire_time,
    ]),
  ];
}

// Attempts that started: the row is written with the start, or now when start and end come together.
const ATTEMPT = `execution, number, state, claim_id, server, sandbox_tier, isolation, limits, start_time, end_time, error, cpu_seconds,
  peak_memory_kib, log_bytes, log_count, log_sha256, dropped_bytes`;

const isNew = ({ start }: Leave): boolean => start !== undefined;

function attemptOf({ row, verdict, start, endTime, usage = NO_USAGE }: Leave): unknown[] {
  const { state, error } = attemptEndOf(verdict);
  return [...startOf(row, start as Start, state), endTime, error, ...usageOf(usage)];
}

const startOf = (row: Running, start: Start, state: string): unknown[] => [
  row.execution,
  row.attempt,
  state,
  row.claim_id,
  row.server,
  start.tier,
  start.isolation,
  JSON.stringify(start.limits),
  start.time,
];

// The row of an attempt that goes on.
export const insertStarted = (started: readonly { row: Running; start: Start }[]): string[] =>
  insert('attempts', ATTEMPT, started.map(({ row, start }) => [...startOf(row, start, 'RUNNING'), null, null, ...usageOf(NO_USAGE)])); // biome-ignore format: a line

function attemptEnd({ row, verdict, start, endTime, usage = NO_USAGE }: Leave): string[] {
  if (start || row.started === 0) return [];
  const { state, error } = attemptEndOf(verdict);
  const sql = `UPDATE attempts SET state = ?, end_time = GREATEST(start_time, ?), error = ?, cpu_seconds = ?, peak_memory_kib = ?, log_bytes = ?,
    log_count = ?, log_sha256 = ?, dropped_bytes = ? WHERE execution = ? AND number = ?`;
  return [format(sql, [state, endTime, error, ...usageOf(usage), row.execution, row.attempt])];
}

function attemptEndOf(verdict: Verdict): { state: string; error: string | null } {
  if (verdict.to === 'QUEUED' || !verdict.attempt) throw new Error('an attempt that started cannot be given back unused');
  return { state: verdict.attempt, error: verdict.error ? JSON.stringify(verdict.error) : null };
}

const usageOf = (usage: Usage): unknown[] => [
  usage.cpuSeconds,
  usage.peakMemoryKib,
  usage.logBytes,
  usage.logCount,
  usage.logSha256,
  usage.droppedBytes,
];

interface After {
  after: Told;
  lane: number;
  isChanged: boolean;
  isEnded: boolean;
  output: string | null;
}

function rowAfter({ row, told, verdict, start, endTime }: Leave): After {
  if (verdict.to === 'QUEUED') return { after: told, lane: row.lane, isChanged: false, isEnded: false, output: null };
  const after = {
    ...told,
    state: verdict.to,
    version: told.version + 1,
    error: verdict.error ?? null,
    attempt_count: start ? row.attempt : told.attempt_count,
    start_time: told.start_time ?? start?.time ?? null,
  };
  if (verdict.to === 'RETRYING') return { after, lane: row.lane, isChanged: true, isEnded: false, output: null };
  return { after: { ...after, end_time: endTime }, lane: row.lane, isChanged: true, isEnded: true, output: verdict.output ?? null };
}

const isLarge = (output: string | null): output is string => output !== null && Buffer.byteLength(output) > LARGE_BYTES;

const FIXED = 'id, workspace, automation, revision, creator, priority, lane, create_time';
const CHANGING = ['state', 'version', 'error', 'output', 'attempt_count', 'start_time', 'end_time'];

// All rows in one statement, at half the cost of an update for each. They are there: this transaction has read them.
function update(rows: readonly After[]): string[] {
  const changed = rows.filter(({ isChanged }) => isChanged).map(({ after, lane, output }) => [
      after.id, after.workspace, after.automation, after.revision, after.creator, after.priority, lane, after.create_time,
      after.state, after.version, after.error ? JSON.stringify(after.error) : null, isLarge(output) ? null : output, after.attempt_count,
      after.start_time, after.end_time,
    ]); // biome-ignore format: rows
  const set = CHANGING.map((column) => `${column} = VALUES(${column})`).join(', ');
  return insert('executions', `${FIXED}, ${CHANGING.join(', ')}`, changed).map((sql) => `${sql} ON DUPLICATE KEY UPDATE ${set}`);
}
