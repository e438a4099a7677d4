// From a claimed execution and its revision to the job that a server runs.
import { Job } from '#gen/millrace/runner/v1/job.ts';
import { fromBytes } from '#platform/id.ts';
import { durationOf, type Spec } from '../engine/specs.ts';
import type { Claimed, Ready } from './claim-store.ts';
import * as traces from './traces.ts';

const GRACE_MS = 10_000; // the contract's default
const MARGIN_MS = 15_000; // for a server that does not end it

// When schedule-to-close ends, how long this attempt may take, and when the dispatcher acts although the server does not.
export function timesOf({ base_time, now }: Ready, { startToCloseMs, scheduleToCloseMs }: Spec) {
  const expireTime = new Date(base_time.getTime() + scheduleToCloseMs);
  const runMs = Math.max(1, Math.min(startToCloseMs, expireTime.getTime() - now.getTime()));
  return { expireTime, runMs, deadline: new Date(now.getTime() + runMs + GRACE_MS + MARGIN_MS) };
}

export function jobOf({ row, workspace, claimId }: Claimed, { spec }: Spec, runMs: number): Job {
  const executionId = fromBytes('execution', row.execution);
  const { attempt } = row;
  return Job.fromPartial({
    executionId,
    attempt,
    claimId,
    source: spec.source,
    inputJson: row.input ?? '',
    ...(spec.resources ? { resources: spec.resources } : {}),
    startToClose: durationOf(runMs),
    ...(spec.timeouts?.heartbeat ? { heartbeat: spec.timeouts.heartbeat } : {}),
    isolation: spec.isolation,
    reuseKey: `${workspace.toString('hex')}.${row.automation.toString('hex')}.${row.revision}`,
    principal: fromBytes('user', row.creator),
    environment: spec.environmentDigest || 'base',
    traceparent: traces.begin(claimId, row.traceparent, { 'millrace.execution': executionId, 'millrace.attempt': attempt }),
  });
}
