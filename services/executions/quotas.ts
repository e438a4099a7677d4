// Quotas: how much of each kind a workspace may use, and whether it has. Pure.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { Quota_Kind as Kind, type Quota } from '#gen/millrace/executions/v1/quota.ts';
import { type Fault, reasonsOf } from '#platform/errors.ts';

// The columns of the limits, and what is counted.
export const KINDS = {
  queued: Kind.QUEUED,
  running: Kind.RUNNING,
  log_mib_per_day: Kind.LOG_MIB_PER_DAY,
  log_mib_per_month: Kind.LOG_MIB_PER_MONTH,
  result_mib: Kind.RESULT_MIB,
  run_minutes_per_month: Kind.RUN_MINUTES_PER_MONTH,
} as const;
export type KindName = keyof typeof KINDS;
export const NAMES = Object.keys(KINDS) as KindName[];
export type Limits = Record<KindName, number | null>; // null: any number
export type Used = Record<KindName, number>;

// Those beyond which nothing new is accepted. Who waits and who runs is limited elsewhere.
const REFUSING: readonly KindName[] = ['log_mib_per_day', 'log_mib_per_month', 'result_mib', 'run_minutes_per_month'];
const faults = reasonsOf<keyof typeof ErrorReason>('executions');
const LONGEST_RETRY_MS = 3_600_000;

export const over = (own: Partial<Limits>, defaults: Limits): Limits =>
  Object.fromEntries(NAMES.map((name) => [name, own[name] ?? defaults[name]])) as Limits;

// When what is counted by day or month begins anew, in UTC.
export function resetTime(name: KindName, now: Date): Date | undefined {
  const [year, month, day] = [now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()];
  if (name.endsWith('_per_day')) return new Date(Date.UTC(year, month, day + 1));
  return name.endsWith('_per_month') ? new Date(Date.UTC(year, month + 1, 1)) : undefined;
}

// The quota that keeps a workspace from anything new, if one does.
export const exceeded = (limits: Limits, used: Used): KindName | undefined =>
  REFUSING.find((name) => limits[name] !== null && used[name] >= (limits[name] as number));

export function refusal(name: KindName, limits: Limits, now: Date): Fault {
  const reset = resetTime(name, now);
  const words = name.replaceAll('_', ' ').replace('mib', 'MiB');
  const until = reset ? `: it begins anew at ${reset.toISOString()}` : '';
  const retryMs = Math.min(LONGEST_RETRY_MS, reset ? reset.getTime() - now.getTime() : LONGEST_RETRY_MS);
  const metadata = { quota: name.toUpperCase(), limit: `${limits[name]}`, reset_time: reset?.toISOString() ?? '' };
  return faults.exhausted('QUOTA_EXCEEDED', `the workspace has used up its quota of ${limits[name]} ${words}${until}`, retryMs, metadata);
}

export const messageOf = (name: KindName, limits: Limits, used: Used, now: Date): Quota => ({
  kind: KINDS[name],
  limit: limits[name] ?? undefined,
  used: used[name],
  resetTime: resetTime(name, now),
});
