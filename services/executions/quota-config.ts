// How much each workspace may use, unless a platform admin has set something else for it.
import { integer, setting } from '#platform/config.ts';
import type { Limits } from './quotas.ts';

const MOST = 2_147_483_647;
const quota = (name: string, what: string) =>
  setting(`MILLRACE_QUOTA_${name}`, integer(0, 0, MOST), `${what} of a workspace; 0 for any number`);

export const settings = {
  running: quota('RUNNING', 'the most executions that may run at once'),
  logMibPerDay: quota('LOG_MIB_PER_DAY', 'the most MiB of log in a day'),
  logMibPerMonth: quota('LOG_MIB_PER_MONTH', 'the most MiB of log in a month'),
  resultMib: quota('RESULT_MIB', 'the most MiB of results that are kept'),
  runMinutesPerMonth: quota('RUN_MINUTES_PER_MONTH', 'the most minutes of running in a month'),
};

// `maxWaiting` has a setting of its own.
export const defaultsOf = (maxWaiting: number, read: { [K in keyof typeof settings]: number }): Limits => ({
  queued: maxWaiting,
  running: limitOf(read.running),
  log_mib_per_day: limitOf(read.logMibPerDay),
  log_mib_per_month: limitOf(read.logMibPerMonth),
  result_mib: limitOf(read.resultMib),
  run_minutes_per_month: limitOf(read.runMinutesPerMonth),
});

export const limitOf = (value: number): number | null => value || null;
