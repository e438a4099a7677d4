// The statements of a claim. Lock order: servers, ready, running.
import { READY } from '../engine/slots.ts';
import { type Connection, format, hex, insert, rows } from '../engine/sql.ts';
import { epochsOf, lockOwned } from './intake-store.ts';

export interface Ready {
  lane: number;
  priority: number;
  tag: number;
  execution: Buffer;
  limit_key: string | null;
  attempt: number;
  losses: number;
  expire_time: Date;
}
// Where a lane's rows begin: the last one that was claimed. What came before it is deleted, and dear to read while somebody has an old view open.
export interface Mark {
  priority: number;
  tag: number;
}
export interface Ask {
  lane: number;
  count: number;
  mark: Mark | undefined;
}
// An execution as starting it needs it.
export interface Planned {
  id: Buffer;
  workspace: Buffer;
  automation: Buffer;
  revision: number;
  input: string | null;
  traceparent: string | null;
  base_time: Date; // schedule-to-close begins here
  now: Date;
}
export interface Claimed {
  row: Ready;
  planned: Planned;
  claimId: Buffer;
  server: Buffer;
  deadline: Date;
  expireTime: Date;
}

export type Plans = Map<string, Planned>; // by the execution's id in hexadecimal

// Begins a transaction and takes the first rows of each lane that nobody else has taken. For one lane their plans come in the same packet: most often
// the first rows are those that are taken.
export async function take(connection: Connection, owner: Buffer, servers: readonly Buffer[], asks: readonly Ask[]) {
  const [only] = asks;
  const isOne = asks.length === 1 && only !== undefined;
  const results = await rows(connection, [
    'BEGIN',
    lockOwned(owner, servers),
    ...asks.map(head),
    ...(isOne ? plansOf(firstIds(only)) : []),
  ]);
  const [, owned, ...sets] = results as [unknown, Parameters<typeof epochsOf>[0], ...unknown[][]];
  const planned = isOne ? plansFrom(sets.splice(1)) : new Map();
  return { epochs: epochsOf(owned), sets: sets as Ready[][], planned };
}

const head = (ask: Ask): string => `SELECT ${READY} ${first(ask)} FOR UPDATE SKIP LOCKED`;
const firstIds = (ask: Ask): string => `SELECT execution FROM (SELECT execution ${first(ask)}) head`;
const first = ({ lane, count, mark }: Ask): string =>
  `FROM ready WHERE ${format('lane = ?', [lane])}${mark ? after(mark) : ''} AND expire_time > NOW(6) ORDER BY priority, tag, execution LIMIT ${count}`;
const after = ({ priority, tag }: Mark): string =>
  format(' AND (priority < ? OR (priority = ? AND tag >= ?) OR priority > ?)', [priority, priority, tag, priority]);

// The plans of those that are not known yet are added.
export async function plan(connection: Connection, ids: readonly Buffer[], known: Plans): Promise<Plans> {
  const missing = ids.filter((id) => !known.has(hex(id)));
  if (missing.length === 0) return known;
  return new Map([...known, ...plansFrom(await rows(connection, plansOf(format('?', [missing]))))]);
}

const plansOf = (ids: string): string[] => [
  `SELECT id, workspace, automation, revision, input, traceparent, GREATEST(create_time, COALESCE(schedule_time, create_time)) AS base_time,
    NOW(6) AS now FROM executions WHERE id IN (${ids})`,
  `SELECT execution, body FROM results WHERE execution IN (${ids}) AND kind = 'INPUT'`,
];

function plansFrom(results: readonly unknown[][]): Plans {
  const [found = [], inputs = []] = results as [Planned[]?, { execution: Buffer; body: string }[]?];
  const large = new Map(inputs.map(({ execution, body }) => [hex(execution), body]));
  return new Map(found.map((row) => [hex(row.id), { ...row, input: row.input ?? large.get(hex(row.id)) ?? null }]));
}

const RUNNING = `execution, workspace, claim_id, attempt, losses, server, lane, priority, limit_key, state, started, claim_time, deadline, expire_time`;

// Moves them from ready to running, and commits.
export async function move(connection: Connection, claimed: readonly Claimed[]): Promise<void> {
  const inOrder = [...claimed].sort((a, b) => Buffer.compare(a.row.execution, b.row.execution));
  await rows(connection, [
    ...insert('running', RUNNING, inOrder.map(runningOf)), // biome-ignore format: a line
    ...claimed.map(({ row }) =>
      format('DELETE FROM ready WHERE lane = ? AND priority = ? AND tag = ? AND execution = ?', [
        row.lane,
        row.priority,
        row.tag,
        row.execution,
      ]),
    ),
    'COMMIT',
  ]);
}

const runningOf = ({ row, planned, claimId, server, deadline, expireTime }: Claimed): unknown[] => [
  row.execution, planned.workspace, claimId, row.attempt, row.losses, server, row.lane, row.priority, row.limit_key, 'RUNNING', 0, planned.now,
  deadline, expireTime,
]; // biome-ignore format: a row
