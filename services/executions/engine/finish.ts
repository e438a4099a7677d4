// How executions leave running: to a final state, to the backoff of a retry, or back to ready, at once or later. The caller has locked their rows in running (the
// fence), decides by machine.ts, adds what else it writes, and commits. Lock order: running, limits, slots, waiting, ready, timers, executions.
import { endAttempts } from './attempts.ts';
import { selectTold, type Told, tellEnds } from './ended.ts';
import type { Claimed, Situation, Verdict } from './machine.ts';
import { giveOn, lockLimits, READY, readyOf } from './slots.ts';
import type { LoadSpecs } from './specs.ts';
import { type Connection, format, hex, insert, rows } from './sql.ts';

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
  progress_fraction: number | null;
  progress_message: string | null;
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
  progress?: Progress | undefined; // the last one, when it becomes known only now
}
export interface Progress {
  fraction: number;
  message: string;
}
export interface Context {
  told: Told;
  situation: Situation;
}
export type Contexts = ReadonlyMap<string, Context>; // by the execution's id in hexadecimal

const LARGE_BYTES = 16 * 1024; // a larger output stands in results

export const RUNNING = `execution, workspace, claim_id, attempt, losses, server, lane, priority, limit_key, state, started, claim_time, expire_time,
  line_count, progress_fraction, progress_message, NOW(6) AS now`;

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

export interface Finish {
  statements: string[]; // that write what becomes of them: the caller takes them out of running
  lanes: Set<number>; // to ring after the commit
  ends: Ends;
}
// What notices may tell after the commit of executions that end, by their ids in hexadecimal. Those with a large output are not among them.
export type Ends = ReadonlyMap<string, Uint8Array>;

export async function finish(connection: Connection, leaves: readonly Leave[]): Promise<Finish> {
  const inOrder = [...leaves].sort((a, b) => Buffer.compare(a.row.execution, b.row.execution));
  const limits = await lockLimits(connection, slotsOf(inOrder).keys());
  const given = await giveOn(connection, limits, slotsOf(inOrder));
  const back = inOrder.flatMap(({ row, verdict }) =>
    verdict.to === 'QUEUED' && !verdict.inMs ? [{ ...row, losses: verdict.losses }] : [],
  );
  const gone = inOrder.map(rowAfter);
  const ended = gone.filter(({ isEnded }) => isEnded);
  const told = tellEnds(ended.map(toldOf));
  const statements = [
    ...given.statements,
    ...insert('ready', READY, back.map(readyOf)),
    ...inOrder.flatMap(timer),
    ...endAttempts(inOrder),
    ...update(gone.filter(({ isChanged }) => isChanged)),
    ...insert('results', 'execution, kind, body', ended.filter(hasLargeOutput).map(resultOf)),
    ...told.statements,
  ];
  const ends = told.parts.flatMap(({ bytes, isWhole }, index): [string, Uint8Array][] => {
    const one = ended[index];
    return one && isWhole && !isLarge(one.output) ? [[hex(one.after.id), bytes]] : [];
  });
  return { statements, lanes: new Set([...given.lanes, ...back.map(({ lane }) => lane)]), ends: new Map(ends) };
}

export const takeOut = (leaving: readonly Pick<Running, 'execution'>[]): string[] =>
  leaving.length === 0 ? [] : [format('DELETE FROM running WHERE execution IN (?)', [leaving.map(({ execution }) => execution)])];

// `ready` implies that the slot is held: what goes back there keeps it.
function slotsOf(leaves: readonly Leave[]): Map<string, Buffer[]> {
  const freed = new Map<string, Buffer[]>();
  for (const { row, verdict } of leaves) {
    if (row.limit_key !== null && !isBack(verdict)) freed.set(row.limit_key, [...(freed.get(row.limit_key) ?? []), row.execution]);
  }
  return freed;
}

const isBack = (verdict: Verdict): boolean => verdict.to === 'QUEUED' && !verdict.inMs;

function timer({ row, verdict }: Leave): string[] {
  if ((verdict.to !== 'RETRYING' && verdict.to !== 'QUEUED') || isBack(verdict)) return [];
  const [kind, attempt, losses] = verdict.to === 'QUEUED' ? ['WAIT', row.attempt, verdict.losses] : ['RETRY', row.attempt + 1, 0];
  const columns = 'due_time, kind, execution, lane, priority, limit_key, attempt, losses, expire_time';
  return [
    format(`INSERT INTO timers (${columns}) VALUES (NOW(6) + INTERVAL ? MICROSECOND, ?, ?, ?, ?, ?, ?, ?, ?)`, [
      (verdict.inMs ?? 0) * 1000,
      kind,
      row.execution,
      row.lane,
      row.priority,
      row.limit_key,
      attempt,
      losses,
      row.expire_time,
    ]),
  ];
}

interface After {
  after: Told;
  lane: number;
  isChanged: boolean;
  isEnded: boolean;
  output: string | null;
}

function rowAfter({ row, told, verdict, start, endTime, progress }: Leave): After {
  if (verdict.to === 'QUEUED') return { after: told, lane: row.lane, isChanged: false, isEnded: false, output: null };
  const after = {
    ...told,
    state: verdict.to,
    version: told.version + 1,
    error: verdict.error ?? null,
    attempt_count: start ? row.attempt : told.attempt_count,
    start_time: told.start_time ?? start?.time ?? null,
    progress_fraction: progress ? progress.fraction : row.progress_fraction,
    progress_message: progress ? progress.message : row.progress_message,
  };
  if (verdict.to === 'RETRYING') return { after, lane: row.lane, isChanged: true, isEnded: false, output: null };
  return { after: { ...after, end_time: endTime }, lane: row.lane, isChanged: true, isEnded: true, output: verdict.output ?? null };
}

const isLarge = (output: string | null): output is string => output !== null && Buffer.byteLength(output) > LARGE_BYTES;
const hasLargeOutput = ({ output }: After): boolean => isLarge(output);
const resultOf = ({ after, output }: After): unknown[] => [after.id, 'OUTPUT', output];
const toldOf = ({ after, output }: After) => ({ ...after, output: isLarge(output) ? null : output });

const FIXED = 'id, workspace, automation, revision, creator, priority, lane, create_time';
const CHANGING = [
  'state',
  'version',
  'error',
  'output',
  'attempt_count',
  'start_time',
  'end_time',
  'progress_fraction',
  'progress_message',
];

// All rows in one statement, at half the cost of an update for each. They are there: this transaction has read them.
function update(changed: readonly After[]): string[] {
  const set = CHANGING.map((column) => `${column} = VALUES(${column})`).join(', ');
  const inserts = insert('executions', `${FIXED}, ${CHANGING.join(', ')}`, changed.map(executionOf));
  return inserts.map((sql) => `${sql} ON DUPLICATE KEY UPDATE ${set}`);
}

function executionOf({ after, lane, output }: After): unknown[] {
  const { id, workspace, automation, revision, creator, priority, create_time } = after;
  const { state, version, error, attempt_count, start_time, end_time, progress_fraction, progress_message } = after;
  const body = isLarge(output) ? null : output;
  return [
    ...[id, workspace, automation, revision, creator, priority, lane, create_time],
    ...[state, version, error ? JSON.stringify(error) : null, body, attempt_count, start_time, end_time],
    ...[progress_fraction, progress_message],
  ];
}
