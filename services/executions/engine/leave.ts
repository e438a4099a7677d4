// Ends executions that do not run: out of ready, waiting or timers, with their slots given on, the final state and the event in one transaction.
// Lock order: limits, slots, waiting, ready, timers, executions.
import { selectTold, type Told, tellEnds } from './ended.ts';
import type { ErrorBody } from './machine.ts';
import { giveOn, lockLimits } from './slots.ts';
import { type Connection, format, hex, rows } from './sql.ts';

export interface Ending {
  execution: Buffer;
  to: 'CANCELLED' | 'TIMED_OUT' | 'SKIPPED'; // TIMED_OUT only if its waiting has expired
  error?: ErrorBody;
  reason?: string; // of the cancel
}
export interface Left {
  ended: Set<string>; // their ids in hexadecimal; the others have moved: look again
  lanes: Set<number>; // to ring after the commit
}
export interface Place {
  place: 'ready' | 'waiting' | 'timers';
  execution: Buffer;
  limit_key: string | null;
  where: string; // its full primary key
}

const GRACE_SECONDS = 10;
const MARGIN_SECONDS = 15; // for a server that does not end it

// Inside the caller's transaction. Call relay.kick() and ring(lanes) after the commit, and notify each that ended.
export async function endWaiting(connection: Connection, endings: readonly Ending[]): Promise<Left> {
  const wanted = new Map(endings.map((ending) => [hex(ending.execution), ending]));
  const places = await findPlaces(
    connection,
    endings.map(({ execution }) => execution),
  );
  const limits = await lockLimits(connection, slotsOf(places).keys());
  const held = await lockPlaces(connection, places, ({ execution }) => wanted.get(hex(execution))?.to === 'TIMED_OUT');
  if (held.length === 0) return { ended: new Set(), lanes: new Set() };
  const results = await rows<unknown[][]>(connection, [
    ...held.map(({ place, where }) => `DELETE FROM ${place} WHERE ${where}`),
    'SELECT NOW(6) AS now',
    selectTold(held.map(({ execution }) => execution)),
  ]);
  const [clock] = results.at(-2) as [{ now: Date }];
  const given = await giveOn(connection, limits, slotsOf(held));
  const after = (results.at(-1) as Told[]).map((row) => endedRow(row, wanted.get(hex(row.id)), clock.now));
  const told = after.map(({ row }) => row);
  await rows(connection, [...given.statements, ...after.map(({ row, ending }) => update(row, ending)), ...tellEnds(told).statements]);
  return { ended: new Set(held.map(({ execution }) => hex(execution))), lanes: new Set(given.lanes) };
}

// Asks one that runs to stop. Without a grace of its own the server ends it in time; with one the dispatcher does when that is over. Answers its
// server, whose owner is to be told after the commit; undefined when it does not run or was asked before to stop as soon.
export async function askToStop(connection: Connection, execution: Buffer, reason: string, graceMs?: number): Promise<Buffer | undefined> {
  const until = format('NOW(6) + INTERVAL ? MICROSECOND', [
    graceMs === undefined ? (GRACE_SECONDS + MARGIN_SECONDS) * 1e6 : graceMs * 1000,
  ]);
  const isSooner = graceMs === undefined ? '' : ` OR (state = 'CANCELLING' AND deadline > ${until})`;
  const select = format(`SELECT server FROM running WHERE execution = ? AND (state = 'RUNNING'${isSooner}) FOR UPDATE`, [execution]);
  const [[row]] = await rows<[{ server: Buffer }[]]>(connection, [select]);
  if (!row) return undefined;
  await rows(connection, [
    format(`UPDATE running SET state = 'CANCELLING', deadline = LEAST(deadline, ${until}) WHERE execution = ?`, [execution]),
    format('UPDATE executions SET cancel_reason = COALESCE(?, cancel_reason) WHERE id = ?', [reason || null, execution]),
  ]);
  return row.server;
}

const KEYS = {
  ready: ['lane', 'priority', 'tag'],
  waiting: ['limit_key', 'seq'],
  timers: ['due_time', 'kind'],
} as const;

// As text a time keeps its microseconds.
const columnOf = (key: string): string => (key === 'due_time' ? 'CAST(due_time AS CHAR) AS due_time' : key);

// Where executions stand that wait for something.
export async function findPlaces(connection: Connection, executions: readonly Buffer[]): Promise<Place[]> {
  const selects = Object.entries(KEYS).map(([table, keys]) =>
    format(`SELECT execution, limit_key, ${keys.map(columnOf).join(', ')} FROM ${table} WHERE execution IN (?)`, [executions]),
  );
  const found = await rows<Record<string, unknown>[][]>(connection, selects);
  return Object.entries(KEYS).flatMap(([place, keys], index) =>
    (found[index] ?? []).map((row) => ({
      place: place as Place['place'],
      execution: row.execution as Buffer,
      limit_key: row.limit_key as string | null,
      where: [...keys, 'execution'].map((key) => format(`${key} = ?`, [row[key]])).join(' AND '),
    })),
  );
}

// Those that still stand where they were found; of the expiring ones, those whose time is over.
export async function lockPlaces(connection: Connection, places: readonly Place[], isExpiry: (place: Place) => boolean): Promise<Place[]> {
  if (places.length === 0) return [];
  const order = ['waiting', 'ready', 'timers'];
  const inOrder = [...places].sort((a, b) => order.indexOf(a.place) - order.indexOf(b.place) || (a.where < b.where ? -1 : 1));
  const found = await rows<unknown[][]>(
    connection,
    inOrder.map((one) => `SELECT 1 FROM ${one.place} WHERE ${one.where}${isExpiry(one) ? ' AND expire_time <= NOW(6)' : ''} FOR UPDATE`),
  );
  return inOrder.filter((_, index) => (found[index] ?? []).length > 0);
}

// The slots that they hold.
export function slotsOf(held: readonly Place[]): Map<string, Buffer[]> {
  const freed = new Map<string, Buffer[]>();
  for (const { place, limit_key: key, execution } of held) {
    if (place === 'ready' && key !== null) freed.set(key, [...(freed.get(key) ?? []), execution]);
  }
  return freed;
}

function endedRow(row: Told, ending: Ending | undefined, now: Date): { row: Told; ending: Ending } {
  if (!ending) throw new Error('an execution was found that nobody asked for');
  return { row: { ...row, state: ending.to, version: row.version + 1, error: ending.error ?? row.error, end_time: now }, ending };
}

const update = ({ id, state, version, error, end_time }: Told, { reason }: Ending): string =>
  format('UPDATE executions SET state = ?, version = ?, error = ?, cancel_reason = COALESCE(?, cancel_reason), end_time = ? WHERE id = ?', [
    state,
    version,
    error ? JSON.stringify(error) : null,
    reason || null,
    end_time,
    id,
  ]);
