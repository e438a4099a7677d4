// From a claimed execution and its revision to the job that a server runs.
import { Job } from '#gen/millrace/runner/v1/job.ts';
import { fromBytes } from '#platform/id.ts';
import type { Claimed } from '../engine/claims.ts';
import { durationOf, type Spec } from '../engine/specs.ts';
import * as traces from './traces.ts';

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
