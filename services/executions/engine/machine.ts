// The state machine of executions and attempts. Pure: time, randomness and what is kept are arguments.
//
//   SCHEDULED -> QUEUED -> RUNNING -> SUCCEEDED | FAILED | TIMED_OUT        RUNNING -> QUEUED (lost or refused before it started)
//   RUNNING -> RETRYING -> QUEUED                                           RUNNING -> CANCELLING -> CANCELLED | SUCCEEDED (in time)
//   SCHEDULED | QUEUED | RETRYING -> PAUSED -> where it would stand by then  SCHEDULED | QUEUED | RETRYING | PAUSED -> CANCELLED | TIMED_OUT (expired)
export type OpenState = 'SCHEDULED' | 'QUEUED' | 'RUNNING' | 'RETRYING' | 'PAUSED' | 'CANCELLING';
export type FinalState = 'SUCCEEDED' | 'FAILED' | 'CANCELLED' | 'TIMED_OUT' | 'SKIPPED';
export type State = OpenState | FinalState;
export type AttemptState = 'STARTING' | 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'TIMED_OUT' | 'CANCELLED' | 'LOST';

export const MOVES: Record<State, readonly State[]> = {
  SCHEDULED: ['QUEUED', 'PAUSED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'],
  QUEUED: ['RUNNING', 'PAUSED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'],
  RUNNING: ['QUEUED', 'RETRYING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT'],
  RETRYING: ['QUEUED', 'PAUSED', 'CANCELLED', 'TIMED_OUT'],
  PAUSED: ['SCHEDULED', 'QUEUED', 'RETRYING', 'CANCELLED', 'TIMED_OUT'],
  CANCELLING: ['CANCELLED', 'SUCCEEDED'],
  SUCCEEDED: [],
  FAILED: [],
  CANCELLED: [],
  TIMED_OUT: [],
  SKIPPED: [],
};
export const isFinal = (state: State): state is FinalState => MOVES[state].length === 0;
export const canMove = (from: State, to: State): boolean => MOVES[from].includes(to);

// A person may hold what waits, not what runs.
export const mayHold = (state: State): boolean => canMove(state, 'PAUSED');

// Where a held one goes when the person lets it go on: what it waited for besides may still lie ahead.
export function afterHold({
  attempt,
  resumeTime,
  now,
}: {
  attempt: number;
  resumeTime: Date | null;
  now: Date;
}): { to: 'QUEUED' } | { to: 'SCHEDULED' | 'RETRYING'; at: Date } {
  if (!resumeTime || resumeTime <= now) return { to: 'QUEUED' };
  return { to: attempt > 1 ? 'RETRYING' : 'SCHEDULED', at: resumeTime };
}

export interface ErrorBody {
  type: string;
  message: string;
  traceback: string;
  retryable: boolean; // whether another attempt was allowed by the policy
}

// What happens after a failed attempt, with every default filled in.
export interface Policy {
  maxAttempts: number;
  initialMs: number;
  coefficient: number;
  maxMs: number;
  nonRetryable: ReadonlySet<string>;
  onLost: 'RETRY' | 'FAIL';
}

// An execution that stands in running.
export interface Claimed {
  state: 'RUNNING' | 'CANCELLING';
  attempt: number;
  losses: number; // of this attempt's number, before it started
  started: boolean;
}

// What is known besides, when it leaves running.
export interface Situation {
  policy: Policy;
  leftMs: number; // until schedule-to-close
  lost: number; // attempts that were lost after they started, before this one
  random: number; // from 0 to 1
}

export type Outcome =
  | { kind: 'SUCCEEDED'; output: string }
  | { kind: 'FAILED' | 'TIMED_OUT' | 'CANCELLED'; type: string; message: string; traceback: string };

// Where it goes from running. `attempt` is the final state of the attempt; undefined: it never started, its number is not used up.
export type Verdict =
  | { to: FinalState; attempt: AttemptState | undefined; error: ErrorBody | undefined; output: string | undefined }
  | { to: 'RETRYING'; attempt: AttemptState; error: ErrorBody; inMs: number }
  | { to: 'QUEUED'; losses: number; inMs?: number }; // later: what it needs is not there yet

// What another attempt will not find either.
const FINAL = new Set(['SecretUnavailable', 'VariableUnavailable']);
const MAX_LOSSES = 20;
const MAX_LOST = 3;
export const LOST = 'WorkerLost';

// The server says how the attempt ended.
export function afterResult(claimed: Claimed, outcome: Outcome, situation: Situation): Verdict {
  if (outcome.kind === 'SUCCEEDED') return { to: 'SUCCEEDED', attempt: 'SUCCEEDED', error: undefined, output: outcome.output };
  if (claimed.state === 'CANCELLING') return cancelled(outcome.type ? errorOf(outcome, false) : undefined);
  if (outcome.kind === 'TIMED_OUT' && situation.leftMs <= 0) return end('TIMED_OUT', 'TIMED_OUT', expired('ScheduleToCloseTimeout'));
  if (outcome.kind !== 'CANCELLED') return afterFailure(claimed, outcome.kind, outcome, situation);
  return afterFailure(claimed, 'FAILED', { type: 'Killed', message: 'It was stopped by its server.', traceback: '' }, situation);
}

// Its server is gone, or does not have it.
export function afterLoss(claimed: Claimed, situation: Situation): Verdict {
  const failure = { type: LOST, message: 'Its server was lost while it ran; what it did then is unknown.', traceback: '' };
  if (claimed.state === 'CANCELLING') return { ...cancelled(undefined), attempt: claimed.started ? 'LOST' : undefined };
  if (claimed.started) return afterFailure(claimed, 'LOST', failure, situation);
  if (claimed.losses + 1 < MAX_LOSSES) return { to: 'QUEUED', losses: claimed.losses + 1 };
  const message = `${MAX_LOSSES} servers were lost before it could start.`;
  return { to: 'FAILED', attempt: undefined, error: { type: LOST, message, traceback: '', retryable: false }, output: undefined };
}

// The server did not take it: nothing is counted.
export function afterRefusal(claimed: Claimed, inMs = 0): Verdict {
  if (claimed.state === 'CANCELLING') return { ...cancelled(undefined), attempt: undefined };
  return { to: 'QUEUED', losses: claimed.losses, ...(inMs > 0 ? { inMs } : {}) };
}

// The time in which the server should have ended it is over.
export function afterDeadline(claimed: Claimed, situation: Situation): Verdict {
  if (claimed.state === 'CANCELLING') return { ...cancelled(undefined), attempt: claimed.started ? 'CANCELLED' : undefined };
  if (situation.leftMs <= 0)
    return { ...end('TIMED_OUT', 'TIMED_OUT', expired('ScheduleToCloseTimeout')), attempt: claimed.started ? 'TIMED_OUT' : undefined };
  if (!claimed.started) return afterLoss(claimed, situation);
  const failure = { type: 'StartToCloseTimeout', message: 'It took longer than allowed, and its server did not end it.', traceback: '' };
  return afterFailure(claimed, 'TIMED_OUT', failure, situation);
}

export const expired = (type: 'ScheduleToStartTimeout' | 'ScheduleToCloseTimeout'): ErrorBody => ({
  type,
  message:
    type === 'ScheduleToStartTimeout' ? 'It did not start in time.' : 'All its attempts and waiting together took longer than allowed.',
  traceback: '',
  retryable: false,
});

// It would have started, but its automation lets it wait for nobody.
export const skipped = (): ErrorBody => ({
  type: 'ConcurrencyLimit',
  message: 'Others held all places of its concurrency key.',
  traceback: '',
  retryable: false,
});

type Failure = Omit<ErrorBody, 'retryable'>;

// Source: exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", 2015).
function afterFailure(claimed: Claimed, kind: 'FAILED' | 'TIMED_OUT' | 'LOST', failure: Failure, situation: Situation): Verdict {
  const { policy, leftMs, random } = situation;
  const inMs = Math.floor(random * Math.min(policy.maxMs, policy.initialMs * policy.coefficient ** (claimed.attempt - 1)));
  const isAllowed = mayRetry(claimed, failure, situation);
  const error = errorOf(failure, isAllowed);
  if (isAllowed && inMs < leftMs) return { to: 'RETRYING', attempt: kind, error, inMs };
  return end(kind === 'TIMED_OUT' ? 'TIMED_OUT' : 'FAILED', kind, error);
}

function mayRetry({ attempt }: Claimed, { type }: Failure, { policy, lost }: Situation): boolean {
  if (type === LOST && (policy.onLost === 'FAIL' || lost + 1 >= MAX_LOST)) return false;
  return attempt < policy.maxAttempts && !policy.nonRetryable.has(type) && !FINAL.has(type);
}

const errorOf = ({ type, message, traceback }: Failure, retryable: boolean): ErrorBody => ({ type, message, traceback, retryable });
const end = (to: FinalState, attempt: AttemptState, error: ErrorBody) => ({ to, attempt, error, output: undefined });
const cancelled = (error: ErrorBody | undefined) => ({ to: 'CANCELLED', attempt: 'CANCELLED', error, output: undefined }) as const;
