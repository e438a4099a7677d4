// config.ts: the settings of schedules.
import { integer, number, setting } from '#platform/config.ts';

export const settings = {
  max: setting('MILLRACE_SCHEDULES_MAX', integer(1000, 1, 1_000_000), 'how many schedules a workspace may have'),
  leastSeconds: setting(
    'MILLRACE_SCHEDULES_LEAST_SECONDS',
    number(1, 0.001, 86_400),
    'how far apart the times of a schedule must be at least, in seconds',
  ),
  maxBuffered: setting('MILLRACE_SCHEDULES_MAX_BUFFERED', integer(1000, 1, 100_000), 'how many ticks of a schedule may wait'),
  tickDays: setting('MILLRACE_SCHEDULES_TICK_DAYS', integer(30, 1, 3650), 'how long ended ticks are kept, in days'),
};
