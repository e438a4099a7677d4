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
  reconcileMs: setting(
    'MILLRACE_EXECUTIONS_RECONCILE_MS',
    integer(30_000, 100, 3_600_000),
    'how often what every execution was promised is checked, in milliseconds',
  ),
};
