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
export type Admit = (lane: number) => Promise<void>;

const FRESH_MS = 5000;
const FULL_MS = 250;
const MAX_LANES = 10_000;
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export function openQuota({
  max,
  count,
  now = () => performance.now(),
}: {
  max: number;
  count(lane: number): Promise<number>;
  now?(): number;
}): Admit {
  const lanes = new LRUCache<number, Estimate>({ max: MAX_LANES });

  function recount(lane: number, estimate: Estimate): Promise<void> {
    const before = estimate.admitted;
    estimate.counting ??= count(lane)
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

  return async (lane) => {
    const estimate = lanes.get(lane) ?? { waiting: 0, admitted: 0, countTime: Number.NEGATIVE_INFINITY, counting: undefined };
    lanes.set(lane, estimate);
    const isFull = () => estimate.waiting + estimate.admitted >= max;
    const age = now() - estimate.countTime;
    if (age === Number.POSITIVE_INFINITY || (isFull() && age > FULL_MS)) await recount(lane, estimate);
    else if (age > FRESH_MS) recount(lane, estimate).catch(() => undefined); // an estimate that is too high is corrected when it matters
    if (isFull())
      throw faults.exhausted('QUEUE_FULL', `${max} executions of the workspace wait already: try again when some have run`, 1000);
    estimate.admitted += 1;
  };
}
