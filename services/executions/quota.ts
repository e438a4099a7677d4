// How many executions of a workspace may wait. An estimate: what waited when last counted, and what this process admitted since. What others
// accept is seen at the next count, so the limit is soft by some seconds of their work.

import { LRUCache } from 'lru-cache';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { reasonsOf } from '#platform/errors.ts';

interface Estimate {
  waiting: number;
  admitted: number; // since the count began
  countTime: number;
  counting: Promise<void> | undefined;
}
export type Admit = (workspace: Buffer, max?: number) => Promise<void>;

const FRESH_MS = 5000;
const FULL_MS = 250;
const MAX_KNOWN = 10_000;
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

// `max`: for those of whom nothing else is said.
export function openQuota({
  max: usual,
  count,
  now = () => performance.now(),
}: {
  max: number;
  count(workspace: Buffer): Promise<number>;
  now?(): number;
}): Admit {
  const known = new LRUCache<string, Estimate>({ max: MAX_KNOWN });

  function recount(workspace: Buffer, estimate: Estimate): Promise<void> {
    const before = estimate.admitted;
    estimate.counting ??= count(workspace)
      .then((waiting) => {
        estimate.waiting = waiting;
        estimate.admitted -= before;
        estimate.countTime = now();
      })
      .finally(() => {
        estimate.counting = undefined;
      });
    return estimate.counting;
  }

  return async (workspace, max = usual) => {
    const estimate = known.get(workspace.toString('hex')) ?? {
      waiting: 0,
      admitted: 0,
      countTime: Number.NEGATIVE_INFINITY,
      counting: undefined,
    };
    known.set(workspace.toString('hex'), estimate);
    const isFull = () => estimate.waiting + estimate.admitted >= max;
    const age = now() - estimate.countTime;
    if (age === Number.POSITIVE_INFINITY || (isFull() && age > FULL_MS)) await recount(workspace, estimate);
    else if (age > FRESH_MS) recount(workspace, estimate).catch(() => undefined); // an estimate that is too high is corrected when it matters
    if (isFull())
      throw faults.exhausted('QUEUE_FULL', `${max} executions of the workspace wait already: try again when some have run`, 1000);
    estimate.admitted += 1;
  };
}
