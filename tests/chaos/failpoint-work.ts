// What is run while processes are killed between accepting and finishing.
import { Result_Outcome } from '#gen/millrace/runner/v1/job.ts';
import type { PeerJob } from '../../services/executions/dispatcher/peer.test.ts';

// What a job does is in its input. Its lines say on which claim they were written.
export function act(job: PeerJob): void {
  const input = JSON.parse(job.job.inputJson || '{}');
  if (input.quick) {
    job.end({ outputJson: `${input.n}` });
    return;
  }
  job.start();
  for (let line = 0; line < 3; line += 1) job.say(`claim ${job.job.claimId.toString('hex')} ${line}`);
  if (input.never) return;
  const isFailing = input.fails && job.job.attempt === 1;
  setTimeout(
    () => job.end(isFailing ? { outcome: Result_Outcome.FAILED, errorType: 'Failed' } : { outputJson: `${input.n}` }),
    Math.random() * 40,
  );
}

export interface Kind {
  spec: object;
  input?: object;
  laterMs?: number;
  next?: 'cancel' | 'pause';
  isKeyless?: boolean; // a call that is repeated makes another execution
}
export const KINDS: Record<string, Kind> = {
  plain: { spec: {} },
  quick: { spec: { queue: 'quick' }, input: { quick: true }, isKeyless: true }, // whatever can be done at once is
  lent: { spec: { queue: 'quick' }, isKeyless: true }, // nothing waits before it: it takes a place that is lent
  limited: { spec: { concurrency: { max: 2, policy: 1, key: [] } } },
  failing: { spec: { retryPolicy: { maxAttempts: 3, initialInterval: { seconds: 0, nanos: 5e7 } } }, input: { fails: true } },
  later: { spec: {}, laterMs: 150 },
  stubborn: { spec: {}, input: { never: true }, next: 'cancel' },
  behind: { spec: { concurrency: { max: 1, policy: 1, key: [] } }, next: 'cancel' },
  brief: { spec: { timeouts: { scheduleToStart: { seconds: 0, nanos: 1e7 } } }, input: {}, next: 'pause' },
  held: { spec: {}, laterMs: 400, next: 'pause' },
};
