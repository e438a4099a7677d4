// A claim: an execution that a server is to run. It stands in running, under an id that nobody else has.
import type { Fresh } from './fresh.ts';
import type { Spec } from './specs.ts';
import { insert } from './sql.ts';

// A row of ready, with what starting its execution takes.
export interface Ready {
  lane: number;
  priority: number;
  tag: number;
  execution: Buffer;
  limit_key: string | null;
  attempt: number;
  losses: number;
  workspace: Buffer | null; // null: its history was dropped
  automation: Buffer;
  revision: number;
  creator: Buffer; // whom it runs for
  input: string | null;
  traceparent: string | null;
  version: number;
  retry_of: Buffer | null;
  labels: Record<string, string> | null;
  schedule_time: Date | null;
  create_time: Date;
  base_time: Date; // schedule-to-close begins here
  now: Date;
}
export interface Claimed {
  row: Ready;
  workspace: Buffer;
  claimId: Buffer;
  server: Buffer;
  deadline: Date;
  expireTime: Date;
}

export const CLAIM_BYTES = 16;
const GRACE_MS = 10_000; // the contract's default
const MARGIN_MS = 15_000; // for a server that does not end it

// When schedule-to-close ends, how long this attempt may take, and when the dispatcher acts although the server does not.
export function timesOf({ base_time, now }: Ready, { startToCloseMs, scheduleToCloseMs }: Spec) {
  const expireTime = new Date(base_time.getTime() + scheduleToCloseMs);
  const runMs = Math.max(1, Math.min(startToCloseMs, expireTime.getTime() - now.getTime()));
  return { expireTime, runMs, deadline: new Date(now.getTime() + runMs + GRACE_MS + MARGIN_MS) };
}

// What was accepted just now, as a look at ready would find it.
export const readyOf = (fresh: Fresh, now: Date): Ready => ({
  ...fresh,
  limit_key: null,
  attempt: 1,
  losses: 0,
  version: 1,
  schedule_time: null,
  base_time: fresh.create_time,
  now,
});

const RUNNING = `execution, workspace, claim_id, attempt, losses, server, lane, priority, limit_key, state, started, claim_time, deadline, expire_time`;

export const insertRunning = (claimed: readonly Claimed[]): string[] => insert('running', RUNNING, claimed.map(runningOf));

const runningOf = ({ row, workspace, claimId, server, deadline, expireTime }: Claimed): unknown[] => [
  ...[row.execution, workspace, claimId, row.attempt, row.losses, server, row.lane, row.priority, row.limit_key],
  ...['RUNNING', 0, row.now, deadline, expireTime],
];
