// Settings of the executions area.
import { integer, setting } from '#platform/config.ts';

export const settings = {
  maxWaiting: setting(
    'MILLRACE_EXECUTIONS_MAX_WAITING',
    integer(100_000, 1, 10_000_000),
    'the most executions of a workspace that may wait',
  ),
  keepAliveMs: setting(
    'MILLRACE_EXECUTIONS_KEEP_ALIVE_MS',
    integer(5000, 100, 60_000),
    'after how many milliseconds without a frame a stream shows that it lives, and looks again',
  ),
  lookMs: setting(
    'MILLRACE_EXECUTIONS_LOOK_MS',
    integer(1000, 10, 60_000),
    'how often RunAndWait looks without having been told to, in milliseconds',
  ),
  retentionWeeks: setting(
    'MILLRACE_EXECUTIONS_RETENTION_WEEKS',
    integer(13, 0, 520).refine((weeks) => weeks === 0 || weeks >= 5, 'must be 0, for ever, or at least 5'), // a key of `unique` may name an execution for 30 days
    'how many weeks an execution is kept after its end: 0 for ever, else at least 5; whole weeks are dropped',
  ),
  reconcileMs: setting(
    'MILLRACE_EXECUTIONS_RECONCILE_MS',
    integer(30_000, 100, 3_600_000),
    'how often what every execution was promised is checked, in milliseconds',
  ),
};
