// secret.ts: what a secret is, how it may change, and who may use it. Values pass by; nothing here keeps one.
import { Secret } from '#gen/millrace/automations/v1/secret.ts';
import { invalid } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';

// What an update may name, as in a field mask.
export const UPDATABLE = ['description', 'automation_ids', 'user_ids'] as const;
export type Updatable = (typeof UPDATABLE)[number];

const LEAST_BYTES = 8;

export function accept(draft: Secret, creatorId: string, id: string, now: Date): Secret {
  if (draft.name === '') throw invalid('secret.name', 'must be given: letters, digits and _, not beginning with a digit');
  checkValue('secret.value', draft.value);
  return limited({
    ...Secret.fromPartial({ id, name: draft.name, creatorId, valueCreatorId: creatorId }),
    description: draft.description || undefined,
    automationIds: draft.automationIds,
    userIds: draft.userIds,
    valueVersion: 1,
    valueTime: now,
    createTime: now,
    updateTime: now,
    version: 1,
  });
}

export function update(secret: Secret, draft: Secret, fields: readonly Updatable[], now: Date): Secret {
  const has = (field: Updatable) => fields.includes(field);
  return limited({
    ...secret,
    ...(has('description') && { description: draft.description || undefined }),
    ...(has('automation_ids') && { automationIds: draft.automationIds }),
    ...(has('user_ids') && { userIds: draft.userIds }),
    updateTime: now,
    version: secret.version + 1,
  });
}

export function rotate(secret: Secret, value: string, userId: string, now: Date): Secret {
  checkValue('value', value);
  const { valueVersion, version } = secret;
  return { ...secret, valueVersion: valueVersion + 1, valueTime: now, valueCreatorId: userId, updateTime: now, version: version + 1 };
}

// Whether an execution of the automation may use it for the user. Nobody named means everybody of the workspace.
export const isAllowed = ({ automationIds, userIds }: Pick<Secret, 'automationIds' | 'userIds'>, automationId: string, userId?: string) =>
  (automationIds.length === 0 || automationIds.includes(automationId)) &&
  (userId === undefined || userIds.length === 0 || userIds.includes(userId));

function checkValue(field: string, value: string): void {
  if (Buffer.byteLength(value) < LEAST_BYTES) throw invalid(field, `must have at least ${LEAST_BYTES} bytes: less could not be hidden`);
}

function limited(secret: Secret): Secret {
  for (const id of secret.automationIds) toBytes('automation', id, 'secret.automationIds');
  for (const id of secret.userIds) toBytes('user', id, 'secret.userIds');
  return { ...secret, automationIds: [...new Set(secret.automationIds)], userIds: [...new Set(secret.userIds)] };
}
