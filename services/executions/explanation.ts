// Why an execution is where it is, and what would change it. Pure: everything that is known of it is an argument.
import { Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { type Cause, type Explanation, Cause_Reason as Reason, Cause as toCause } from '#gen/millrace/executions/v1/explanation.ts';
import { type Quota, Quota_Kind } from '#gen/millrace/executions/v1/quota.ts';
import { fromBytes } from '#platform/id.ts';
import { isFinal } from './engine/machine.ts';
import { type Fleet, fleetReason, type Row, type StateName, stateOf } from './execution.ts';
import { type Labels, labelsOf, textOf } from './selector.ts';

// Where an open execution stands.
export type Place =
  | { kind: 'ready'; before: number; expireTime: Date }
  | { kind: 'waiting'; before: number; expireTime: Date; key: string; max: number; used: number; holders: readonly Buffer[] }
  | { kind: 'timers'; dueTime: Date; expireTime: Date }
  | { kind: 'running'; server: Buffer; started: boolean; deadline: Date; attempt: number };
export interface Lane {
  queue: string;
  state: string;
  maxRunning: number | null;
  running: number;
  quota: { limit: number; used: number } | null; // of what runs in the workspace
  nextTime: Date | null; // when the rate allows the next one, if that is later
  halt: { mode: string; reason: string; isEverywhere: boolean } | null;
}
export interface Facts {
  row: Row;
  cancelReason: string | null;
  place: Place | undefined; // undefined only when it has ended
  lane: Lane;
  fleet: Fleet;
  environment?: Environment | undefined; // undefined: one that every server has
  untold?: readonly string[]; // what it is started with, and cannot be had now
}
// The libraries that it needs.
export interface Environment {
  name: string;
  state: 'QUEUED' | 'BUILDING' | 'READY' | 'FAILED' | undefined; // undefined: nobody could be asked
  error: string;
}

const MOST_COUNTED = 10_000;
const MOST_LABELS = 20;

export function explain(facts: Facts): Explanation {
  const { row, place } = facts;
  const state = stateOf(row);
  const isQueued = place?.kind === 'ready' || place?.kind === 'waiting';
  return {
    executionId: fromBytes('execution', row.id),
    state: Execution_State[state],
    causes: place && !isFinal(state) ? causesOf(facts, state, place) : [ended(facts, state)],
    position: isQueued ? Math.min(place.before, MOST_COUNTED) + 1 : undefined,
    expireTime: place && place.kind !== 'running' ? place.expireTime : undefined,
  };
}

function causesOf(facts: Facts, state: StateName, place: Place): Cause[] {
  const missing = [...environment(facts, state, place), ...untold(facts, state, place)];
  if (place.kind === 'running') return [...missing, running(state, place)];
  if (place.kind === 'timers') return missing.length > 0 ? missing : [timed(facts, state, place.dueTime)];
  const blocked = [...missing, ...queue(facts.lane), ...fleet(facts.fleet, labelsOf(facts.row.selector) ?? {})];
  if (place.kind === 'waiting') return [limited(place), ...blocked];
  return blocked.length > 0 ? blocked : [turn(facts.fleet, place.before)];
}

const cause = (reason: Reason, message: string, remedy: string, rest: Partial<Cause> = {}): Cause =>
  toCause.fromPartial({ reason, message, remedy, ...rest } as object);

function ended({ row, cancelReason }: Facts, state: StateName): Cause {
  const error = row.error as { type?: string; message?: string } | null;
  const how: Partial<Record<StateName, string>> = {
    SUCCEEDED: 'It succeeded',
    FAILED: `It failed after ${count(row.attempt_count, 'attempt')}`,
    CANCELLED: `It was cancelled${cancelReason ? `: ${cancelReason}` : ''}`,
    TIMED_OUT: 'It took longer than allowed',
    SKIPPED: 'It was never started',
  };
  const why = error?.type ? ` (${error.type}${error.message ? `: ${error.message}` : ''})` : '';
  const gone = row.payload_deleted_time ? ' Its input and output were erased, as its automation asks.' : '';
  const retry = gone ? 'Retry it with an input: that makes a new execution.' : 'Retry it: that makes a new execution.';
  return cause(Reason.ENDED, `${how[state] ?? 'It has ended'}${why}.${gone}`, state === 'SUCCEEDED' ? '' : retry);
}

function running(state: StateName, { server, started, deadline, attempt }: Place & { kind: 'running' }): Cause {
  const serverId = fromBytes('server', server);
  if (state === 'CANCELLING') {
    const remedy = 'Wait, or cancel it with a grace of zero.';
    return cause(Reason.CANCELLING, `It was asked to stop on ${serverId}.`, remedy, { serverId, untilTime: deadline });
  }
  if (!started) {
    const remedy = 'Wait: if the server does not start it, another one will.';
    return cause(Reason.STARTING, `It was handed to ${serverId}, which has not started it yet.`, remedy, { serverId });
  }
  const message = `Attempt ${attempt} runs on ${serverId}.`;
  return cause(Reason.RUNNING, message, 'Wait for its end, or cancel it.', { serverId, untilTime: deadline });
}

function timed({ row }: Facts, state: StateName, untilTime: Date): Cause {
  if (state === 'PAUSED') return cause(Reason.PAUSED, 'It was paused.', 'Resume it.');
  if (state === 'RETRYING') {
    const message = `Attempt ${row.attempt_count} failed; the next one starts at ${untilTime.toISOString()}.`;
    return cause(Reason.BACKOFF, message, 'Wait, or cancel it and retry it by hand.', { untilTime });
  }
  return cause(Reason.SCHEDULED, `It shall not start before ${untilTime.toISOString()}.`, 'Wait, or cancel it.', { untilTime });
}

// Its libraries. One in timers that is QUEUED waits for nothing else: a server that was to run it did not have them.
function environment({ environment: needed }: Facts, state: StateName, place: Place): Cause[] {
  if (!needed || (place.kind === 'running' && place.started) || !['QUEUED', 'RUNNING'].includes(state)) return [];
  const { name, error } = needed;
  const because = (message: string, remedy: string) => [cause(Reason.ENVIRONMENT_BUILDING, message, remedy)];
  if (needed.state === 'FAILED')
    return because(`The build of its environment ${name} failed: ${error}.`, 'Have it built again, or publish another revision.');
  if (needed.state === 'QUEUED')
    return because(`Its environment ${name} waits for a builder.`, 'Wait for the build; see that a builder runs.');
  if (needed.state === 'BUILDING') return because(`Its environment ${name} is being built.`, 'Wait for the build.');
  if (place.kind !== 'timers') return [];
  return because(
    `The server that was to run it does not have its environment ${name}.`,
    'Wait; if it stays so, have the environment built again.',
  );
}

function untold({ untold: needed = [] }: Facts, state: StateName, place: Place): Cause[] {
  if (needed.length === 0 || (place.kind === 'running' && place.started) || !['QUEUED', 'RUNNING'].includes(state)) return [];
  const message = `What it is started with cannot be had now, since automations does not answer: ${needed.join(', ')}.`;
  return [cause(Reason.AUTOMATIONS_UNAVAILABLE, message, 'Wait: it starts when automations answers again; see that it runs.')];
}

function limited({ key, max, used, holders }: Place & { kind: 'waiting' }): Cause {
  const limit = { key, max, used, holderIds: holders.map((id) => fromBytes('execution', id)) };
  const message = `${used} of ${max} executions with its concurrency key are ready or run already.`;
  return cause(Reason.CONCURRENCY_LIMIT, message, 'The end of a holder, or a higher limit in a newly published revision.', { limit });
}

function queue({ queue: name, state, maxRunning, running: n, quota, nextTime, halt }: Lane): Cause[] {
  const causes: Cause[] = [];
  if (halt) {
    const where = halt.isEverywhere ? 'everywhere' : 'in the workspace';
    const how = halt.mode === 'STOPPED' ? 'Executions are stopped' : 'Executions are accepted and not started';
    causes.push(cause(Reason.MAINTENANCE, `${how} ${where}${halt.reason ? `: ${halt.reason}` : ''}.`, 'Set the maintenance to NORMAL.'));
  }
  if (state === 'PAUSED') causes.push(cause(Reason.QUEUE_PAUSED, `The queue ${name} is paused.`, 'Resume the queue.'));
  if (maxRunning !== null && n >= maxRunning) {
    const message = `${n} of ${maxRunning} executions of the queue ${name} run already.`;
    causes.push(cause(Reason.QUEUE_LIMIT, message, 'The end of one, or a higher max_running.'));
  }
  if (quota && quota.used >= quota.limit) {
    const message = `${quota.used} of ${quota.limit} executions of the workspace run already.`;
    causes.push(
      cause(Reason.QUOTA, message, 'The end of one, or a higher quota.', { quota: { kind: Quota_Kind.RUNNING, ...quota } as Quota }),
    );
  }
  if (nextTime) {
    const message = `The queue ${name} has started as many of late as its rate allows.`;
    causes.push(cause(Reason.QUEUE_RATE, message, 'Wait, or raise its rate.', { untilTime: nextTime }));
  }
  return causes;
}

function unmatched({ all }: Fleet, selector: Labels): Cause {
  const servers = all.slice(0, MOST_LABELS).map(({ labels, live }) => ({ labels, serverCount: live }));
  const message = `No automation server has ${textOf(selector)}. There are: ${servers.map(({ labels }) => textOf(labels)).join('; ')}.`;
  return cause(Reason.NO_MATCHING_SERVER, message, 'Start an automation server with these labels.', { selector, servers });
}

function fleet(found: Fleet, selector: Labels): Cause[] {
  const remedies = {
    NO_SERVER: ['No automation server takes work.', 'Start an automation server.'],
    SANDBOX_UNAVAILABLE: [
      `None of ${count(found.live, 'automation server')} has a sandbox as good as it must be.`,
      'Run a server where its self-test reaches the tier, or lower its minimum.',
    ],
    NO_DISPATCHER: ['No dispatcher hands work to the automation servers.', 'Start a dispatcher.'],
  } as const;
  const reason = fleetReason(found);
  if (reason === 'NO_MATCHING_SERVER') return [unmatched(found, selector)];
  return reason === '' ? [] : [cause(Reason[reason], remedies[reason][0], remedies[reason][1])];
}

function turn({ slots, used }: Fleet, before: number): Cause {
  if (used >= slots) {
    const message = `All ${count(slots, 'slot')} of the automation servers are taken.`;
    return cause(Reason.SERVERS_BUSY, message, 'The end of what runs, or more automation servers.');
  }
  const message = before === 0 ? 'It is the next of its queue.' : `It waits for ${count(Math.min(before, MOST_COUNTED), 'other')}.`;
  return cause(Reason.TURN, message, 'Wait: it starts when those before it have.');
}

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;
