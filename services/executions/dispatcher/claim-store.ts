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

// Begins a transaction and takes the first rows of each lane that nobody else has taken.
export async function take(connection: Connection, owner: Buffer, servers: readonly Buffer[], asks: readonly Ask[]) {
  const [, owned, ...sets] = await rows(connection, ['BEGIN', lockOwned(owner, servers), ...asks.map(head)]);
  return { epochs: epochsOf(owned as Parameters<typeof epochsOf>[0]), sets: sets as Ready[][] };
}

const head = ({ lane, count, mark }: Ask): string =>
  `SELECT ${READY} FROM ready WHERE ${format('lane = ?', [lane])}${mark ? after(mark) : ''} AND expire_time > NOW(6)
    ORDER BY priority, tag, execution LIMIT ${count} FOR UPDATE SKIP LOCKED`;

const after = ({ priority, tag }: Mark): string =>
  format(' AND (priority < ? OR (priority = ? AND tag >= ?) OR priority > ?)', [priority, priority, tag, priority]);

export async function plans(connection: Connection, ids: readonly Buffer[]): Promise<Map<string, Planned>> {
  const [found, inputs] = (await rows(connection, [
    format(
      `SELECT id, workspace, automation, revision, input, traceparent, GREATEST(create_time, COALESCE(schedule_time, create_time)) AS base_time,
        NOW(6) AS now FROM executions WHERE id IN (?)`,
      [ids],
    ),
    format("SELECT execution, body FROM results WHERE execution IN (?) AND kind = 'INPUT'", [ids]),
  ])) as [Planned[], { execution: Buffer; body: string }[]];
  const large = new Map(inputs.map(({ execution, body }) => [hex(execution), body]));
  return new Map(found.map((row) => [hex(row.id), { ...row, input: row.input ?? large.get(hex(row.id)) ?? null }]));
}

const RUNNING = `execution, workspace, claim_id, attempt, losses, server, lane, priority, limit_key, state, started, claim_time, deadline, expire_time`;

// Moves them from ready to running, and commits.
export async function move(connection: Connection, claimed: readonly Claimed[]): Promise<void> {
  const inOrder = [...claimed].sort((a, b) => Buffer.compare(a.row.execution, b.row.execution));
  await rows(connection, [
    ...insert('running', RUNNING, inOrder.map(runningOf)),
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
  ...[row.execution, planned.workspace, claimId, row.attempt, row.losses, server, row.lane, row.priority, row.limit_key],
  ...['RUNNING', 0, planned.now, deadline, expireTime],
];
