// The statements of accepting, few round trips for many items. Lock order: idempotency, unique_keys, limits, executions, slots, waiting, ready, timers.
import type { PoolConnection, RowDataPacket } from '#platform/db.ts';
import { fromBytes } from '#platform/id.ts';
import { emitSql } from '#platform/outbox.ts';
import type { Asked, Entry } from './accept.ts';
import type { Limit } from './concurrency.ts';
import { type Claimed, insertRunning } from './engine/claims.ts';
import { EVERYONE } from './engine/gates.ts';
import { unless } from './engine/sql.ts';
import * as events from './events.ts';
import { messageOf, type Row } from './execution.ts';
import type { Automation, Shut } from './plan.ts';

export type Connection = PoolConnection;
export interface KeyRow extends RowDataPacket {
  key_hash: Buffer;
  request_hash: Buffer;
  resource: string;
}
export interface LimitRow extends RowDataPacket {
  limit_key: string;
  max: number;
  used: number;
  queued: number; // no more than count for the limit
}

const LARGE_BYTES = 16 * 1024; // a larger input stands in results
const KEYS = 'SELECT key_hash, request_hash, resource FROM idempotency WHERE key_hash IN (?)';

// First the queues that are paused or draining or have a selector, and the workspaces whose executions are halted.
const LOOK = `SELECT workspace, queue, state AS how, '' AS reason, queue_selector AS selector FROM lanes
      WHERE workspace IN (?) AND (state <> 'ACTIVE' OR queue_selector IS NOT NULL)
    UNION ALL SELECT workspace, NULL, mode, reason, NULL FROM holds WHERE workspace IN (?);
  SELECT NOW(6) AS now;
  SELECT id, workspace, published_revision, disabled, deleted, concurrency, queue, selector FROM automations WHERE id IN (?)`;

export const workspacesOf = (items: readonly Asked[]): Buffer[] => [
  ...new Map(items.map(({ workspace }) => [workspace.toString('hex'), workspace])).values(),
];

// What must be known of a batch.
export interface Looked {
  time: Date;
  automations: ReadonlyMap<string, Automation>;
  keys: readonly KeyRow[]; // that were used before
  shut: readonly Shut[];
}

export async function look(connection: Connection, items: readonly Asked[]): Promise<Looked> {
  const ids = [...new Map(items.map(({ draft }) => [draft.automationId, draft.automation])).values()];
  const hashes = items.flatMap(({ key }) => (key ? [key.hash] : []));
  const workspaces = workspacesOf(items);
  const [results] = await connection.query<RowDataPacket[][]>(hashes.length > 0 ? `${LOOK}; ${KEYS}` : LOOK, [
    workspaces,
    [...workspaces, EVERYONE],
    ids,
    hashes,
  ]);
  const [shut, [clock], automations, keys] = results as unknown as [Shut[], [{ now: Date }], Automation[], KeyRow[] | undefined];
  return { time: clock.now, automations: new Map(automations.map((row) => [row.id.toString('hex'), row])), keys: keys ?? [], shut };
}

// Fails with UNLIKE, and all that follows is left out, unless the automations are as they were, without limit and selector, and nothing is halted.
export function alike(connection: Connection, workspaces: readonly Buffer[], automations: readonly Automation[]): string {
  const same = automations.map(({ id, workspace, published_revision, queue }) =>
    connection.format('(id = ? AND workspace = ? AND published_revision = ? AND queue <=> ?)', [id, workspace, published_revision, queue]),
  );
  const simple = 'disabled = 0 AND deleted = 0 AND concurrency IS NULL AND selector IS NULL';
  const isAlike = `(SELECT COUNT(*) FROM automations WHERE (${same.join(' OR ')}) AND ${simple}) = ${automations.length}
    AND NOT EXISTS (SELECT 1 FROM lanes WHERE workspace IN (?) AND (state <> 'ACTIVE' OR queue_selector IS NOT NULL))
    AND NOT EXISTS (SELECT 1 FROM holds WHERE workspace IN (?))`;
  return connection.format(unless(isAlike), [workspaces, [...workspaces, EVERYONE]]);
}

// Writes the keys and answers whose they are now. Waits for one that another process is writing.
export async function claimKeys(connection: Connection, entries: readonly Entry[]): Promise<KeyRow[]> {
  const keyed = entries.flatMap(({ asked }) => (asked.key ? [{ ...asked.key, id: asked.id }] : []));
  keyed.sort((a, b) => Buffer.compare(a.hash, b.hash));
  const values = keyed.map(({ hash, request, id }) => [hash, request, fromBytes('execution', id)]);
  const places = keyed.map(() => '(?, NOW(6))').join(', ');
  const insert = `INSERT INTO idempotency (key_hash, request_hash, resource, create_time) VALUES ${places} ON DUPLICATE KEY UPDATE key_hash = key_hash`;
  const [results] = await connection.query<RowDataPacket[][]>(`${insert}; ${KEYS}`, [...values, keyed.map(({ hash }) => hash)]);
  return results[1] as unknown as KeyRow[];
}

// Makes the limits that are not there yet, locks all, in the order of their keys, and counts who waits where that decides.
export async function lockLimits(connection: Connection, limits: readonly (Limit & { automation: Buffer })[]): Promise<LimitRow[]> {
  const keys = limits.map(({ key }) => key);
  const values = limits.map(({ key, max, automation, policy }) => [key, max, 0, automation, policy]);
  const insert = 'INSERT INTO limits (limit_key, max, used, automation, policy) VALUES ? ON DUPLICATE KEY UPDATE limit_key = limit_key';
  const queued = limits.map(({ key, maxQueued, policy }) => {
    const most = policy === 'QUEUE' ? maxQueued : 0; // 0: it does not matter how many
    return connection.format('(SELECT COUNT(*) FROM (SELECT 1 FROM waiting WHERE limit_key = ? LIMIT ?) q)', [key, most]);
  });
  const [results] = await connection.query<RowDataPacket[][]>(
    `${connection.format(insert, [values])};
    ${connection.format('SELECT limit_key, max, used FROM limits WHERE limit_key IN (?) ORDER BY limit_key FOR UPDATE', [keys])};
    SELECT ${queued.join(', ')}`,
  );
  const [, rows, [counts]] = results as unknown as [unknown, LimitRow[], [Record<string, number>]];
  const byKey = new Map(keys.map((key, index) => [key, Object.values(counts)[index] ?? 0]));
  return rows.map((row) => ({ ...row, queued: byKey.get(row.limit_key) ?? 0 }));
}

// A repeated call gets the same answer: the execution that was there.
export async function pointKey(connection: Connection, { key }: Asked, id: string): Promise<void> {
  if (key) await connection.query('UPDATE idempotency SET resource = ? WHERE key_hash = ?', [id, key.hash]);
}

// What was refused leaves no key behind.
export async function dropKeys(connection: Connection, refused: readonly Asked[]): Promise<void> {
  const keys = refused.flatMap(({ key }) => (key ? [key.hash] : []));
  for (const key of keys) await connection.query('DELETE FROM idempotency WHERE key_hash = ?', [key]);
  for (const { id, draft } of refused) if (draft.unique) await connection.query('DELETE FROM unique_keys WHERE execution = ?', [id]);
}

export const startsNow = ({ plan, waits, skips }: Entry): boolean => !plan.isLater && !waits && !skips;

// Statements with the commit, as one packet; with `begin` when the transaction has not begun.
export function packet(statements: readonly string[], begin: boolean): string {
  if (statements.length === 0) return begin ? 'ROLLBACK' : 'COMMIT'; // what keys answer from now on is kept
  return [...(begin ? ['BEGIN'] : []), ...statements, 'COMMIT'].join(';\n');
}

// Everything that a batch adds. `claims`: all of it is claimed at once.
export function additions(
  connection: Connection,
  entries: readonly Entry[],
  takes: ReadonlyMap<string, number>,
  claims: readonly Claimed[] = [],
): string[] {
  if (entries.length === 0) return [];
  const sorted = [...entries].sort((a, b) => Buffer.compare(a.asked.id, b.asked.id));
  const now = sorted.filter(startsNow);
  const statements: string[] = [];
  const into = (table: string, columns: string, rows: readonly unknown[][]) => {
    if (rows.length > 0) statements.push(connection.format(`INSERT INTO ${table} (${columns}) VALUES ?`, [rows]));
  };
  into('executions', EXECUTION, sorted.map(executionOf));
  into(
    'results',
    'execution, kind, body',
    sorted.filter(isLarge).map(({ asked }) => [asked.id, 'INPUT', asked.draft.inputJson]),
  );
  into(
    'slots',
    'limit_key, execution',
    now.filter(isLimited).map(({ asked, limit }) => [limit?.key, asked.id]),
  );
  for (const [key, taken] of takes)
    statements.push(connection.format('UPDATE limits SET used = used + ? WHERE limit_key = ?', [taken, key]));
  into(
    'waiting',
    'limit_key, seq, execution, lane, priority, attempt, losses, expire_time',
    sorted.filter(({ waits }) => waits).map(waitingOf),
  );
  into('ready', 'lane, priority, tag, execution, limit_key, attempt, losses, expire_time', claims.length > 0 ? [] : now.map(readyOf));
  statements.push(...insertRunning(claims));
  into(
    'timers',
    'due_time, kind, execution, lane, priority, limit_key, attempt, losses, expire_time',
    sorted.filter(({ plan }) => plan.isLater).map(timerOf),
  );
  into('payloads', 'execution, keep_ms, on_read', sorted.flatMap(payloadOf));
  const told = (rows: readonly Row[]) =>
    rows.map((row) => ({ execution: messageOf({ ...row, input: null }, ''), workspaceId: fromBytes('workspace', row.workspace) }));
  const created = sorted.map(({ row, skips }): Row => (skips ? { ...row, state: 'QUEUED', version: 1, error: null, end_time: null } : row));
  const ended = sorted.filter(({ skips }) => skips).map(({ row }) => row);
  const all = [...events.created(told(created)), ...events.ended(told(ended).map(events.partOf))];
  statements.push(emitSql(...all));
  return statements;
}

const EXECUTION =
  'id, workspace, automation, revision, state, version, creator, retry_of, labels, priority, lane, limit_key, input, attempt_count, traceparent, schedule_time, create_time, error, end_time';

const executionOf = (entry: Entry): unknown[] => {
  const { row, asked } = entry;
  const {
    id,
    workspace,
    automation,
    revision,
    state,
    version,
    creator,
    retry_of,
    priority,
    limit_key,
    schedule_time,
    create_time,
    error,
    end_time,
  } = row;
  const labels = row.labels && Object.keys(row.labels).length > 0 ? JSON.stringify(row.labels) : null;
  const input = isLarge(entry) ? null : row.input;
  return [
    id,
    workspace,
    automation,
    revision,
    state,
    version,
    creator,
    retry_of,
    labels,
    priority,
    asked.lane,
    limit_key,
    input,
    0,
    asked.traceparent,
    schedule_time,
    create_time,
    error ? JSON.stringify(error) : null,
    end_time,
  ];
};

const FIRST = 1; // the number of the attempt that comes next
const NO_LOSSES = 0;

const readyOf = ({ asked, plan, tag, limit }: Entry): unknown[] => [
  asked.lane,
  asked.draft.priority,
  tag,
  asked.id,
  limit?.key ?? null,
  FIRST,
  NO_LOSSES,
  plan.expireTime,
];

const waitingOf = ({ asked, plan, tag, limit }: Entry): unknown[] => [
  limit?.key ?? null,
  tag,
  asked.id,
  asked.lane,
  asked.draft.priority,
  FIRST,
  NO_LOSSES,
  plan.expireTime,
];

const timerOf = ({ asked, plan, limit }: Entry): unknown[] => [
  plan.startTime,
  'START',
  asked.id,
  asked.lane,
  asked.draft.priority,
  limit?.key ?? null,
  FIRST,
  NO_LOSSES,
  plan.expireTime,
];

const payloadOf = ({ asked, plan: { retention } }: Entry): unknown[][] =>
  retention ? [[asked.id, retention.keepMs, retention.onRead]] : [];

const isLarge = ({ asked }: Entry): boolean => asked.draft.inputBytes > LARGE_BYTES;
const isLimited = ({ limit }: Entry): boolean => limit !== null;
