// The slots of concurrency keys. Whoever frees one gives it on to the first waiter in the same transaction. Lock order: limits, slots, waiting, ready.
import { type Connection, format, insert, rows } from './sql.ts';
import { nextTag } from './tags.ts';

export interface Limit {
  limit_key: string;
  max: number;
  used: number;
  policy: string | null;
}
export interface Waiter {
  limit_key: string;
  seq: number;
  execution: Buffer;
  lane: number;
  priority: number;
  attempt: number;
  losses: number;
  expire_time: Date;
}
export type Limits = ReadonlyMap<string, Limit>;

export const READY = 'lane, priority, tag, execution, limit_key, attempt, losses, expire_time';

// Locks the limits of some keys, in the order that everybody takes.
export async function lockLimits(connection: Connection, keys: Iterable<string>): Promise<Limits> {
  const names = [...new Set(keys)].sort();
  if (names.length === 0) return new Map();
  const sql = format('SELECT limit_key, max, used, policy FROM limits WHERE limit_key IN (?) ORDER BY limit_key FOR UPDATE', [names]);
  const [found] = await rows<[Limit[]]>(connection, [sql]);
  return new Map(found.map((limit) => [limit.limit_key, limit]));
}

// The statements that free slots of locked limits and let the first waiters in, and the lanes where they may start now.
export async function giveOn(
  connection: Connection,
  limits: Limits,
  freed: ReadonlyMap<string, readonly Buffer[]>,
): Promise<{ statements: string[]; lanes: number[] }> {
  const open = [...limits.values()].flatMap((limit) => {
    const gone = freed.get(limit.limit_key) ?? [];
    return gone.length > 0 ? [{ limit, gone, room: limit.max - limit.used + gone.length }] : [];
  });
  if (open.length === 0) return { statements: [], lanes: [] };
  const selects = open.map(({ limit, room }) => headsOf(limit.limit_key, Math.max(0, room)));
  const heads = await rows<Waiter[][]>(connection, selects);
  const statements: string[] = [];
  const admitted: Waiter[] = [];
  open.forEach(({ limit: { limit_key: key }, gone }, index) => {
    const waiters = heads[index] ?? [];
    for (const execution of gone) statements.push(format('DELETE FROM slots WHERE limit_key = ? AND execution = ?', [key, execution]));
    for (const { seq, execution } of waiters) {
      statements.push(format('DELETE FROM waiting WHERE limit_key = ? AND seq = ? AND execution = ?', [key, seq, execution]));
    }
    const change = waiters.length - gone.length;
    if (change !== 0) statements.push(format('UPDATE limits SET used = used + ? WHERE limit_key = ?', [change, key]));
    admitted.push(...waiters);
  });
  statements.push(...admit(admitted));
  return { statements, lanes: admitted.map(({ lane }) => lane) };
}

// The statements that give a locked limit another size, let in those for whom there is room then, and the lanes where they may start.
export async function resize(connection: Connection, { limit_key: key, used }: Limit, max: number, policy: string) {
  const [waiters] = await rows<[Waiter[]]>(connection, [headsOf(key, Math.max(0, max - used))]);
  const removals = waiters.map(({ seq, execution }) =>
    format('DELETE FROM waiting WHERE limit_key = ? AND seq = ? AND execution = ?', [key, seq, execution]),
  );
  const update = format('UPDATE limits SET max = ?, policy = ?, used = used + ? WHERE limit_key = ?', [max, policy, waiters.length, key]);
  return { statements: [update, ...removals, ...admit(waiters)], lanes: waiters.map(({ lane }) => lane) };
}

const headsOf = (key: string, count: number): string =>
  format(
    `SELECT limit_key, seq, execution, lane, priority, attempt, losses, expire_time FROM waiting
      WHERE limit_key = ? ORDER BY seq LIMIT ? FOR UPDATE`,
    [key, count],
  );

// They hold a slot and may start: with a new tag, or a reader with a low-water mark would pass them by.
export const admit = (waiters: readonly Omit<Waiter, 'seq'>[]): string[] => [
  ...insert('slots', 'limit_key, execution', waiters.map(slotOf)),
  ...insert('ready', READY, waiters.map(readyOf)),
];

const slotOf = ({ limit_key, execution }: Omit<Waiter, 'seq'>): unknown[] => [limit_key, execution];
export const readyOf = (one: Omit<Waiter, 'seq' | 'limit_key'> & { limit_key: string | null }): unknown[] => [
  one.lane,
  one.priority,
  nextTag(),
  one.execution,
  one.limit_key,
  one.attempt,
  one.losses,
  one.expire_time,
];
