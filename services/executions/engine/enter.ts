// Into the queue: to ready with a slot, or behind the limit when there is none. The caller has locked the limits and the rows that move, in that
// order, and removes them.
import { type lockLimits, READY, readyOf } from './slots.ts';
import { format, insert } from './sql.ts';
import { nextTag } from './tags.ts';

// An execution that may start, but for its limit.
export interface Entrant {
  execution: Buffer;
  lane: number;
  priority: number;
  limit_key: string | null;
  attempt: number;
  losses: number;
  expire_time: Date;
}
export type Limits = Awaited<ReturnType<typeof lockLimits>>;

// Those that find no place of a limit that lets nobody wait, among those that come in this order.
export function findNoPlace<T extends Entrant>(limits: Limits, entrants: readonly T[], mayDrop: (one: T) => boolean): T[] {
  const used = new Map([...limits].map(([key, limit]) => [key, limit.used]));
  return entrants.filter((one) => {
    const limit = one.limit_key === null ? undefined : limits.get(one.limit_key);
    if (!limit) return false;
    const now = used.get(limit.limit_key) ?? 0;
    if (now < limit.max) used.set(limit.limit_key, now + 1);
    return now >= limit.max && limit.policy === 'DROP_NEW' && mayDrop(one);
  });
}

export function enter(limits: Limits, entrants: readonly Entrant[]): string[] {
  const used = new Map([...limits].map(([key, limit]) => [key, limit.used]));
  const free: Entrant[] = [];
  const behind: Entrant[] = [];
  for (const one of entrants) {
    const limit = one.limit_key === null ? undefined : limits.get(one.limit_key);
    const now = one.limit_key === null ? 0 : (used.get(one.limit_key) ?? 0);
    if (limit && now >= limit.max) behind.push(one);
    else free.push(one);
    if (limit && now < limit.max) used.set(limit.limit_key, now + 1);
  }
  const holders = free.filter(({ limit_key }) => limit_key !== null);
  const changed = [...limits.keys()].filter((key) => used.get(key) !== limits.get(key)?.used);
  return [
    ...insert('slots', 'limit_key, execution', holders.map(slotOf)),
    ...changed.map((key) => format('UPDATE limits SET used = ? WHERE limit_key = ?', [used.get(key), key])),
    ...insert('waiting', 'limit_key, seq, execution, lane, priority, attempt, losses, expire_time', behind.map(waitingOf)),
    ...insert('ready', READY, free.map(readyOf)),
  ];
}

const slotOf = ({ limit_key, execution }: Entrant): unknown[] => [limit_key, execution];
const waitingOf = (one: Entrant): unknown[] => [
  ...[one.limit_key, nextTag(), one.execution, one.lane, one.priority, one.attempt, one.losses, one.expire_time],
];
