// subscription.ts: what a subscription to events is and how it may change. Nothing here reads a clock, makes an id or knows where
// subscriptions are kept.
import type { EventSubscription } from '#gen/millrace/webhooks/v1/subscription.ts';
import { invalid, permissionDenied } from '#platform/errors.ts';

// What an update may name, as in a field mask. `disabled` and the secret are changed by verbs of their own.
export const UPDATABLE = ['name', 'url', 'types'] as const;
export type Updatable = (typeof UPDATABLE)[number];

export const EVERYTHING = '*';

// The events that can be subscribed to, by the permission to read what they tell.
export const TYPES: Readonly<Record<string, readonly string[]>> = {
  'executions.read': ['execution.created', 'execution.ended'],
  'automations.read': ['automation.created', 'automation.updated', 'automation.published', 'automation.deleted'],
  'schedules.read': ['created', 'updated', 'paused', 'resumed', 'deleted', 'ticked'].map((verb) => `schedule.${verb}`),
  'tasks.read': ['created', 'updated', 'assigned', 'started', 'completed', 'reopened', 'cancelled', 'run', 'deleted', 'commented'].map(
    (verb) => `task.${verb}`,
  ),
};
const KNOWN = [EVERYTHING, ...Object.values(TYPES).flat()];
const RETRY_FIRST_MS = 5000;
const RETRY_MAX_MS = 3 * 3_600_000;

// Throws unless the address may be called.
export type CheckUrl = (url: string) => void;

export function accept(draft: EventSubscription, checkUrl: CheckUrl, creatorId: string, id: string, now: Date): EventSubscription {
  return {
    ...written(draft, checkUrl),
    id,
    disabled: false,
    disabledReason: '',
    secret: '',
    secretCreateTime: now,
    previousSecretExpireTime: undefined,
    ...HEALTHY,
    creatorId,
    createTime: now,
    updateTime: now,
    version: 1,
  };
}

const HEALTHY = { failureCount: 0, failingSinceTime: undefined, pausedUntilTime: undefined };

export function update(before: EventSubscription, draft: EventSubscription, fields: readonly Updatable[], checkUrl: CheckUrl, now: Date) {
  const has = (field: Updatable) => fields.includes(field);
  const next = written(
    {
      ...before,
      ...(has('name') && { name: draft.name }),
      ...(has('url') && { url: draft.url }),
      ...(has('types') && { types: draft.types }),
    },
    checkUrl,
  );
  return changed(before, next, now);
}

export const enable = (before: EventSubscription, now: Date): EventSubscription =>
  changed(before, { ...before, disabled: false, disabledReason: '', ...HEALTHY }, now);

export const disable = (before: EventSubscription, now: Date): EventSubscription =>
  before.disabled ? before : changed(before, { ...before, disabled: true }, now);

export const rotated = (before: EventSubscription, overlapSeconds: number, now: Date): EventSubscription =>
  changed(
    before,
    {
      ...before,
      secretCreateTime: now,
      previousSecretExpireTime: overlapSeconds > 0 ? new Date(now.getTime() + overlapSeconds * 1000) : undefined,
    },
    now,
  );

export const isWanted = ({ types }: Pick<EventSubscription, 'types'>, type: string): boolean =>
  types.includes(EVERYTHING) || types.includes(type);

// Who has events sent must be allowed to read what they tell.
export function mustRead(scopes: ReadonlySet<string>, { types }: Pick<EventSubscription, 'types'>): void {
  for (const [permission, told] of Object.entries(TYPES)) {
    if (scopes.has(permission) || !told.some((type) => isWanted({ types: [...types] }, type))) continue;
    throw permissionDenied('PERMISSION_MISSING', `events of these types need the permission ${permission}`, { permission });
  }
}

// Three times longer after each failure, from 5 s to 3 h: 13 sends in 24 hours. Of each pause half is by chance.
export const backoffMs = (attempts: number, chance: number): number =>
  Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 3 ** Math.min(attempts, 20)) * (0.5 + chance / 2);

const changed = (before: EventSubscription, after: EventSubscription, now: Date): EventSubscription => ({
  ...after,
  updateTime: now,
  version: before.version + 1,
});

function written(draft: EventSubscription, checkUrl: CheckUrl): EventSubscription {
  const name = draft.name.trim();
  if (name === '') throw invalid('subscription.name', 'must not be blank');
  if (draft.types.length === 0) throw invalid('subscription.types', `must name at least one of ${KNOWN.join(', ')}`);
  const unknown = draft.types.find((type) => !KNOWN.includes(type));
  if (unknown !== undefined) throw invalid('subscription.types', `must not name ${unknown}: there are ${KNOWN.join(', ')}`);
  try {
    checkUrl(draft.url);
  } catch (error) {
    throw invalid('subscription.url', error instanceof Error ? error.message : 'cannot be called');
  }
  return { ...draft, name };
}
