// hook.ts: what a hook is and how it may change. Nothing here reads a clock, makes an id or knows where hooks are kept.

import type { Duration } from '#gen/google/protobuf/duration.ts';
import {
  HookAuth_Algorithm as Algorithm,
  HookAuth_Encoding as Encoding,
  type Hook,
  HookAuth,
  HookAuth_Layout as Layout,
  Hook_Preset as Preset,
  HookAuth_Type as Type,
} from '#gen/millrace/webhooks/v1/hook.ts';
import { invalid } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';

// What an update may name, as in a field mask. `disabled` and the secret are changed by verbs of their own.
export const UPDATABLE = ['name', 'automation_id', 'revision', 'auth', 'filter', 'input', 'delivery_id', 'synchronous', 'wait'] as const;
export type Updatable = (typeof UPDATABLE)[number];
const RUN: readonly Updatable[] = ['automation_id', 'revision', 'input'];

const HEADER = /^[a-z0-9-]+$/; // the edge refuses names with underscores
const WAIT_SECONDS = 30;

const PRESETS: Readonly<Record<number, { auth: Partial<HookAuth>; deliveryId: string }>> = {
  [Preset.GENERIC]: {
    auth: {
      type: Type.HMAC,
      layout: Layout.STANDARD,
      encoding: Encoding.BASE64,
      header: 'webhook-signature',
      timestampHeader: 'webhook-timestamp',
      signed: '{id}.{timestamp}.{body}',
    },
    deliveryId: 'webhook-id',
  },
  [Preset.GITHUB]: {
    auth: { type: Type.HMAC, header: 'x-hub-signature-256', prefix: 'sha256=', signed: '{body}' },
    deliveryId: 'x-github-delivery',
  },
  [Preset.STRIPE]: {
    auth: { type: Type.HMAC, layout: Layout.LIST, header: 'stripe-signature', signed: '{timestamp}.{body}' },
    deliveryId: '/id',
  },
  [Preset.CUSTOM]: { auth: {}, deliveryId: '' },
};

export function accept(draft: Hook, creatorId: string, id: string, now: Date): Hook {
  const preset = draft.preset || (draft.auth ? Preset.CUSTOM : Preset.GENERIC);
  const known = PRESETS[preset];
  return {
    ...written({
      ...draft,
      preset,
      auth: draft.auth ?? HookAuth.fromPartial(known?.auth ?? {}),
      deliveryId: draft.deliveryId || (draft.auth ? '' : (known?.deliveryId ?? '')),
    }),
    id,
    path: `/hooks/${id}`,
    secret: '',
    secretCreateTime: now,
    previousSecretExpireTime: undefined,
    creatorId,
    runAsId: creatorId,
    createTime: now,
    updateTime: now,
    version: 1,
  };
}

// Who changes what runs has it run for themselves.
export function update(hook: Hook, draft: Hook, fields: readonly Updatable[], userId: string, now: Date): Hook {
  const has = (field: Updatable) => fields.includes(field);
  const next = written({
    ...hook,
    ...(has('name') && { name: draft.name }),
    ...(has('automation_id') && { automationId: draft.automationId }),
    ...(has('revision') && { revision: draft.revision }),
    ...(has('auth') && { auth: draft.auth ?? HookAuth.fromPartial(PRESETS[hook.preset]?.auth ?? {}) }),
    ...(has('filter') && { filter: draft.filter }),
    ...(has('input') && { input: draft.input }),
    ...(has('delivery_id') && { deliveryId: draft.deliveryId }),
    ...(has('synchronous') && { synchronous: draft.synchronous }),
    ...(has('wait') && { wait: draft.wait }),
    ...(fields.some((field) => RUN.includes(field)) && { runAsId: userId }),
  });
  return changed(hook, next, now);
}

export const enable = (hook: Hook, userId: string, now: Date): Hook =>
  hook.disabled ? changed(hook, { ...hook, disabled: false, runAsId: userId }, now) : hook;

export const disable = (hook: Hook, now: Date): Hook => (hook.disabled ? hook : changed(hook, { ...hook, disabled: true }, now));

export const rotated = (hook: Hook, overlapSeconds: number, now: Date): Hook =>
  changed(
    hook,
    {
      ...hook,
      secretCreateTime: now,
      previousSecretExpireTime: overlapSeconds > 0 ? new Date(now.getTime() + overlapSeconds * 1000) : undefined,
    },
    now,
  );

export const secondsOf = (duration: Duration | undefined, otherwise: number): number =>
  duration ? duration.seconds + duration.nanos / 1e9 : otherwise;

export const waitMsOf = ({ wait }: Pick<Hook, 'wait'>): number => secondsOf(wait, WAIT_SECONDS) * 1000;

const changed = (before: Hook, after: Hook, now: Date): Hook => ({ ...after, updateTime: now, version: before.version + 1 });

// What callers write, checked beyond the contract's own rules and made whole.
function written(hook: Hook): Hook {
  const name = hook.name.trim();
  if (name === '') throw invalid('hook.name', 'must not be blank');
  toBytes('automation', hook.automationId, 'hook.automationId');
  const deliveryId = hook.deliveryId.startsWith('/') ? hook.deliveryId : hook.deliveryId.toLowerCase();
  if (deliveryId !== '' && !deliveryId.startsWith('/') && !HEADER.test(deliveryId))
    throw invalid('hook.deliveryId', 'must be the name of a header, of letters, digits and -, or a JSON Pointer that begins with /');
  const auth = authOf(hook.auth ?? HookAuth.fromPartial({}));
  if (auth.signed.includes('{id}') && (deliveryId === '' || deliveryId.startsWith('/')))
    throw invalid('hook.deliveryId', 'must be the name of a header where hook.auth.signed holds {id}');
  return { ...hook, name, deliveryId, auth, synchronous: hook.synchronous ?? false };
}

function authOf(auth: HookAuth): HookAuth {
  const type = auth.type || Type.HMAC;
  const header = auth.header.toLowerCase();
  const timestampHeader = auth.timestampHeader.toLowerCase();
  for (const [field, value] of [
    ['header', header],
    ['timestampHeader', timestampHeader],
  ]) {
    if (value !== '' && !HEADER.test(value ?? ''))
      throw invalid(`hook.auth.${field}`, 'must be the name of a header, of letters, digits and -');
  }
  if (type !== Type.HMAC) {
    const username = type === Type.BASIC ? auth.username || 'hook' : '';
    if (username.includes(':')) throw invalid('hook.auth.username', 'must not hold a colon (RFC 7617)');
    const isKey = type === Type.API_KEY;
    return HookAuth.fromPartial({ type, username, header: isKey ? header || 'x-api-key' : '', prefix: isKey ? auth.prefix : '' });
  }
  const layout = auth.layout || Layout.PLAIN;
  const hasTime = timestampHeader !== '' || layout === Layout.LIST;
  const signed = auth.signed || (hasTime ? '{timestamp}.{body}' : '{body}');
  if (signed.split('{body}').length !== 2) throw invalid('hook.auth.signed', 'must hold {body} once');
  if (/[{}]/.test(signed.replace(/\{(body|timestamp|id)\}/g, '')))
    throw invalid('hook.auth.signed', 'may hold {body}, {timestamp} and {id}');
  if (signed.includes('{timestamp}') !== hasTime)
    throw invalid(
      'hook.auth.signed',
      hasTime ? 'must hold {timestamp}: a time that is not signed proves nothing' : 'holds {timestamp}, but no header brings it',
    );
  return {
    type,
    header: header || 'x-signature-256',
    algorithm: auth.algorithm || Algorithm.SHA256,
    encoding: auth.encoding || (layout === Layout.STANDARD ? Encoding.BASE64 : Encoding.HEX),
    prefix: layout === Layout.PLAIN ? auth.prefix : '',
    layout,
    timestampHeader,
    signed,
    tolerance: auth.tolerance,
    username: '',
  };
}
