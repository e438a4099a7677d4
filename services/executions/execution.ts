// What an execution is: from what a caller asks for to what is kept, and from what is kept to what callers see.
import { AutomationSpec_Isolation } from '#gen/millrace/automations/v1/spec.ts';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import {
  type Attempt,
  Attempt_State,
  type Execution,
  Execution_State,
  ExecutionError,
  type Uniqueness,
  Uniqueness_Conflict,
} from '#gen/millrace/executions/v1/execution.ts';
import { invalid, reasonsOf } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { isFinal, MOVES, type State } from './engine/machine.ts';
import { type Labels, matches } from './selector.ts';

export type StateName = State;

export const FINAL: readonly StateName[] = (Object.keys(MOVES) as State[]).filter(isFinal);
export const OPEN: readonly StateName[] = (Object.keys(MOVES) as State[]).filter((state) => !isFinal(state));

const MAX_INPUT_BYTES = 1024 * 1024;
const MAX_AHEAD_DAYS = 366;
const DEFAULT_PRIORITY = 5;
const faults = reasonsOf<keyof typeof ErrorReason>('executions');
const DAY_MS = 24 * 3_600_000;

// What a caller asks for.
export interface Draft {
  automation: Buffer;
  automationId: string;
  revision: number; // 0: the published one
  input: Record<string, unknown> | undefined;
  inputJson: string | null;
  inputBytes: number; // of it
  labels: Record<string, string>;
  priority: number;
  scheduleTime: Date | null;
  retryOf: Buffer | null;
  unique: Unique | null;
}
export interface Unique {
  key: Buffer;
  ttlMs: number | null; // null: until it has ended
  onConflict: 'USE_EXISTING' | 'FAIL' | 'CANCEL_EXISTING';
}

export function draftOf(asked: Execution): Draft {
  return {
    automation: toBytes('automation', asked.automationId, 'execution.automation_id'),
    automationId: asked.automationId,
    revision: asked.revision,
    ...inputOf(asked.input),
    labels: asked.labels,
    priority: asked.priority ?? DEFAULT_PRIORITY,
    scheduleTime: asked.scheduleTime ?? null,
    retryOf: null,
    unique: uniqueOf(asked.unique),
  };
}

function uniqueOf(asked: Uniqueness | undefined): Unique | null {
  if (!asked) return null;
  const { FAIL, CANCEL_EXISTING } = Uniqueness_Conflict;
  const { key, ttl, onConflict } = asked;
  const named = onConflict === FAIL ? 'FAIL' : onConflict === CANCEL_EXISTING ? 'CANCEL_EXISTING' : 'USE_EXISTING';
  return { key: Buffer.from(key), ttlMs: ttl ? ttl.seconds * 1000 + ttl.nanos / 1e6 : null, onConflict: named };
}

export function inputOf(input: Record<string, unknown> | undefined): Pick<Draft, 'input' | 'inputJson' | 'inputBytes'> {
  const inputJson = input === undefined ? null : JSON.stringify(input);
  const inputBytes = Buffer.byteLength(inputJson ?? '');
  if (inputBytes > MAX_INPUT_BYTES) throw invalid('execution.input', 'is larger than 1 MiB as JSON');
  return { input, inputJson, inputBytes };
}

// The same again, with the same revision, and the same input unless another is given. FAILED_PRECONDITION / PAYLOAD_DELETED when that is erased.
export function draftAgain(row: Row, input?: Record<string, unknown>): Draft {
  if (input) return { ...repetition(row), ...inputOf(input) };
  if (!row.payload_deleted_time) return repetition(row);
  const id = fromBytes('execution', row.id);
  throw faults.failedPrecondition('PAYLOAD_DELETED', `the input of execution ${id} was erased: send another`, { id });
}

const repetition = (row: Row): Draft => ({
  automation: row.automation,
  automationId: fromBytes('automation', row.automation),
  revision: row.revision,
  input: row.input === null ? undefined : JSON.parse(row.input),
  inputJson: row.input,
  inputBytes: Buffer.byteLength(row.input ?? ''),
  labels: row.labels ?? {},
  priority: row.priority,
  scheduleTime: null,
  retryOf: row.id,
  unique: null,
});

// When it may start. INVALID_ARGUMENT when that is further ahead than an execution is kept waiting.
export function startOf(scheduleTime: Date | null, now: Date): Date {
  if (!scheduleTime) return now;
  const ahead = scheduleTime.getTime() - now.getTime();
  if (!(ahead <= MAX_AHEAD_DAYS * DAY_MS)) throw invalid('execution.schedule_time', `is more than ${MAX_AHEAD_DAYS} days ahead`);
  return ahead > 0 ? scheduleTime : now;
}

// An execution as its row says, with what the hot tables say of it now.
export interface Row {
  id: Buffer;
  workspace: Buffer;
  automation: Buffer;
  revision: number;
  state: StateName;
  version: number;
  creator: Buffer;
  retry_of: Buffer | null;
  labels: Record<string, string> | null;
  priority: number;
  limit_key: string | null;
  error: unknown;
  attempt_count: number;
  schedule_time: Date | null;
  create_time: Date;
  start_time: Date | null;
  end_time: Date | null;
  input: string | null;
  output: string | null;
  running_state: 'RUNNING' | 'CANCELLING' | null;
  progress_fraction: number | null;
  progress_message: string | null;
  timer: TimerKind | null;
  due_time: Date | null;
  blocked?: Blocked | null; // why it alone cannot start
  payload_deleted_time?: Date | null;
  selector?: unknown; // labels that its server must have
}
export type Blocked = 'CONCURRENCY_LIMIT' | 'QUEUE_PAUSED' | 'MAINTENANCE';
export type TimerKind = 'START' | 'RETRY' | 'PAUSE' | 'WAIT'; // WAIT: for what its server lacked

const WAITS_FOR: Record<TimerKind, StateName> = { START: 'SCHEDULED', RETRY: 'RETRYING', PAUSE: 'PAUSED', WAIT: 'QUEUED' };

// A final state is written in the row; an open one is where the execution stands.
export function stateOf(row: Pick<Row, 'state' | 'running_state' | 'timer'>): StateName {
  if (isFinal(row.state)) return row.state;
  if (row.running_state) return row.running_state;
  return row.timer ? WAITS_FOR[row.timer] : 'QUEUED';
}

export function messageOf(row: Row, waitingReason: string): Execution {
  const state = stateOf(row);
  return {
    id: fromBytes('execution', row.id),
    automationId: fromBytes('automation', row.automation),
    revision: row.revision,
    state: Execution_State[state],
    input: row.input === null ? undefined : JSON.parse(row.input),
    output: row.output === null ? undefined : JSON.parse(row.output),
    error: errorOf(row.error),
    labels: row.labels ?? {},
    priority: row.priority,
    scheduleTime: row.schedule_time ?? undefined,
    attemptCount: row.attempt_count,
    nextAttemptTime: state === 'RETRYING' ? (row.due_time ?? undefined) : undefined,
    createTime: row.create_time,
    startTime: row.start_time ?? undefined,
    endTime: row.end_time ?? undefined,
    creatorId: fromBytes('user', row.creator),
    retryOf: row.retry_of ? fromBytes('execution', row.retry_of) : undefined,
    progress: row.progress_fraction === null ? undefined : { fraction: row.progress_fraction, message: row.progress_message ?? '' },
    waitingReason: state === 'QUEUED' ? waitingReason : '',
    version: row.version,
    unique: undefined,
    payloadDeletedTime: row.payload_deleted_time ?? undefined,
  };
}

export const errorOf = (error: unknown): ExecutionError | undefined => (error ? ExecutionError.fromJSON(error) : undefined);

export interface AttemptRow {
  number: number;
  state: string;
  server: Buffer;
  sandbox_tier: number;
  isolation: string;
  limits: string[];
  start_time: Date;
  end_time: Date | null;
  error: unknown;
  cpu_seconds: number | null;
  peak_memory_kib: number | null;
  log_bytes: number | null;
  log_count: number | null;
  line_count: number; // in the log so far
}

export const attemptOf = (row: AttemptRow): Attempt => ({
  number: row.number,
  state: Attempt_State[row.state as keyof typeof Attempt_State] ?? Attempt_State.STATE_UNSPECIFIED,
  serverId: fromBytes('server', row.server),
  sandboxTier: row.sandbox_tier,
  isolation:
    AutomationSpec_Isolation[row.isolation as keyof typeof AutomationSpec_Isolation] ?? AutomationSpec_Isolation.ISOLATION_UNSPECIFIED,
  limits: row.limits,
  startTime: row.start_time,
  endTime: row.end_time ?? undefined,
  error: errorOf(row.error),
  usage:
    row.cpu_seconds === null
      ? undefined
      : { cpuSeconds: row.cpu_seconds, peakMemoryKib: row.peak_memory_kib ?? 0, logBytes: row.log_bytes ?? 0 },
  logCount: row.log_count ?? row.line_count,
});

// Servers with the same labels.
export interface Servers {
  labels: Labels;
  live: number; // that take work, whatever their sandbox
  able: number; // those of them whose sandbox is good enough
  slots: number; // of those
  used: number; // slots of those
}
// What may be told of those that run executions, or of those that can run some of them.
export interface Fleet extends Omit<Servers, 'labels'> {
  all: readonly Servers[]; // also those that cannot
  dispatchers: number; // that live
}
export type FleetReason = '' | 'NO_SERVER' | 'NO_MATCHING_SERVER' | 'SANDBOX_UNAVAILABLE' | 'NO_DISPATCHER';

export function fleetFor(all: readonly Servers[], dispatchers: number, selector: Labels | null): Fleet {
  const fleet: Fleet = { all, dispatchers, live: 0, able: 0, slots: 0, used: 0 };
  for (const { labels, live, able, slots, used } of all) {
    if (!matches(labels, selector)) continue;
    fleet.live += live;
    fleet.able += able;
    fleet.slots += slots;
    fleet.used += used;
  }
  return fleet;
}

// Why nothing at all can start. Empty when something can.
export function fleetReason({ all, live, able, dispatchers }: Fleet): FleetReason {
  if (live === 0) return all.length === 0 ? 'NO_SERVER' : 'NO_MATCHING_SERVER';
  if (able === 0) return 'SANDBOX_UNAVAILABLE';
  return dispatchers === 0 ? 'NO_DISPATCHER' : '';
}
