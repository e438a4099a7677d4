// Concurrency limits of automations: which key an execution has, and what becomes of one that finds all its places taken. Pure.
import { createHash } from 'node:crypto';
import { type AutomationSpec, Concurrency_Policy } from '#gen/millrace/automations/v1/spec.ts';

export type Policy = 'QUEUE' | 'DROP_NEW' | 'CANCEL_OLD';
// The limit of an automation's published revision.
export interface Concurrency {
  max: number;
  key: readonly string[]; // JSON Pointers into the input
  policy: Policy;
  maxQueued: number; // 0: any number
}
// The limit that an execution is under.
export interface Limit extends Omit<Concurrency, 'key'> {
  key: string;
}

const MAX_KEY = 200; // what the tables hold

export function concurrencyOf({ concurrency }: Pick<AutomationSpec, 'concurrency'>): Concurrency | null {
  if (!concurrency) return null;
  const { max, key, policy, maxQueued } = concurrency;
  const named = policy === Concurrency_Policy.DROP_NEW ? 'DROP_NEW' : policy === Concurrency_Policy.CANCEL_OLD ? 'CANCEL_OLD' : 'QUEUE';
  return { max, key, policy: named, maxQueued };
}

// The key can be read by people when it is short and plain: the automation, then each pointer with its value.
export function limitOf(automationId: string, concurrency: Concurrency | null, input: unknown): Limit | null {
  if (!concurrency) return null;
  const { key: pointers, ...rest } = concurrency;
  const values = JSON.stringify(pointers.map((pointer) => [pointer, valueAt(input, pointer)]));
  const plain = `${automationId} ${values}`;
  const isShort = plain.length <= MAX_KEY && /^[ -~]*$/.test(plain);
  return { ...rest, key: isShort ? plain : `${automationId} #${createHash('sha256').update(values).digest('hex')}` };
}

// The keys of an automation begin with this.
export const prefixOf = (automationId: string): string => `${automationId} `;

// What a JSON Pointer (RFC 6901) leads to; null when there is nothing. Objects are compared with their members in order.
export function valueAt(input: unknown, pointer: string): unknown {
  let at: unknown = input ?? null;
  for (const token of pointer.split('/').slice(1)) {
    const name = token.replaceAll('~1', '/').replaceAll('~0', '~');
    if (Array.isArray(at)) at = /^(0|[1-9]\d*)$/.test(name) ? at[Number(name)] : undefined;
    else at = typeof at === 'object' && at !== null && Object.hasOwn(at, name) ? (at as Record<string, unknown>)[name] : undefined;
  }
  return inOrder(at ?? null);
}

function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(members.map(([name, inner]) => [name, inOrder(inner)]));
}

// What becomes of one that comes now. `taken` places of the key are, and `queued` wait.
export function placeFor(
  { max, policy, maxQueued }: Omit<Limit, 'key'>,
  taken: number,
  queued: number,
): 'START' | 'WAIT' | 'SKIP' | 'REFUSE' {
  if (taken < max) return 'START';
  if (policy === 'DROP_NEW') return 'SKIP';
  return maxQueued > 0 && queued >= maxQueued && policy !== 'CANCEL_OLD' ? 'REFUSE' : 'WAIT';
}

// Of those with a key, the ones that make room under CANCEL_OLD: all but the newest. Ids sort by time.
export function tooOld<T extends { execution: Buffer }>(all: readonly T[], max: number): T[] {
  const byAge = [...all].sort((a, b) => Buffer.compare(a.execution, b.execution));
  return byAge.slice(0, Math.max(0, byAge.length - max));
}
