// Executions in running that nobody will end: their server is lost, or their time is over and the server did not act. Any dispatcher may end them.
import type { Pool, PoolConnection, ResultSetHeader } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import { claimedOf, contextsOf, finish, type Leave, lockRunning, type Running, takeOut } from '../engine/finish.ts';
import { EVERYONE } from '../engine/gates.ts';
import { askToStop } from '../engine/leave.ts';
import { afterDeadline, afterLoss, type Claimed, type Situation, type Verdict } from '../engine/machine.ts';
import type { LoadSpecs } from '../engine/specs.ts';
import { format, hex, rows } from '../engine/sql.ts';
import * as metrics from './metrics.ts';
import { transaction } from './transaction.ts';

interface Deps {
  pool: Pool;
  specs: LoadSpecs;
  left(leaves: readonly Leave[], lanes: ReadonlySet<number>): void; // after each commit
}

const PAGE = 256;

// Those whose server was expected to end them.
export const endOverdue = (deps: Deps): Promise<number> =>
  end(deps, 'SELECT execution FROM running WHERE deadline <= NOW(6)', 'deadline <= NOW(6)', (claimed, situation) => {
    metrics.expired.inc({ where: 'running' });
    return afterDeadline(claimed, situation);
  });

const GONE = "NOT EXISTS (SELECT 1 FROM servers s WHERE s.id = running.server AND s.state = 'LIVE')";

// Those of servers that are lost.
export const endLost = (deps: Deps): Promise<number> =>
  end(deps, `SELECT execution FROM running WHERE ${GONE}`, GONE, (claimed, situation) => {
    metrics.lost.inc({ when: claimed.started ? 'RUNNING' : 'STARTING' });
    return afterLoss(claimed, situation);
  });

// Gives up servers whose lease is over, but for those that have just answered. From then on nothing of theirs is written; what they had is ended by
// endLost, by whoever comes first.
export async function giveUpServers(pool: Pool, answering: readonly Buffer[]): Promise<Buffer[]> {
  const [found = []] = await rows<[{ id: Buffer }[]]>(pool, ["SELECT id FROM servers WHERE state = 'LIVE' AND lease_until < NOW(6)"]);
  const given: Buffer[] = [];
  for (const { id } of found.filter((one) => !answering.some((other) => other.equals(one.id)))) {
    const [{ affectedRows }] = await pool.query<ResultSetHeader>(GIVE_UP, [id]);
    if (affectedRows === 1) given.push(id);
    failpoint('overdue.given_up');
  }
  return given;
}

const GIVE_UP = `UPDATE servers SET state = 'LOST', owner = NULL, owner_epoch = owner_epoch + 1
  WHERE id = ? AND state = 'LIVE' AND lease_until < NOW(6)`;

const HALTED = `SELECT r.execution FROM holds o STRAIGHT_JOIN running r ON o.workspace IN (r.workspace, x'${EVERYONE.toString('hex')}')
  WHERE o.mode = 'STOPPED' AND r.state = 'RUNNING' LIMIT ${PAGE}`;

// Asks those to stop whose workspace was stopped, some at a time. Answers their servers.
export async function stopHalted(pool: Pool): Promise<Set<Buffer>> {
  const [found = []] = await rows<[{ execution: Buffer }[]]>(pool, [HALTED]);
  const servers = new Map<string, Buffer>();
  for (const { execution } of found) {
    const server = await transaction(pool, (connection) => askToStop(connection, execution, 'executions were stopped'));
    if (server) servers.set(hex(server), server);
  }
  return new Set(servers.values());
}

type Decide = (claimed: Claimed, situation: Situation) => Verdict;

async function end(deps: Deps, select: string, condition: string, decide: Decide): Promise<number> {
  let count = 0;
  for (;;) {
    const [found = []] = await rows<[{ execution: Buffer }[]]>(deps.pool, [`${select} LIMIT ${PAGE}`]);
    if (found.length === 0) return count;
    const ids = found.map(({ execution }) => execution);
    const { leaves, lanes } = await transaction(deps.pool, (connection) => take(deps, connection, ids, condition, decide));
    if (leaves.length === 0) return count; // somebody else was faster
    failpoint('overdue.after_commit');
    count += leaves.length;
    deps.left(leaves, lanes);
  }
}

async function take(deps: Deps, connection: PoolConnection, ids: readonly Buffer[], condition: string, decide: Decide) {
  const [locked = []] = await rows<[Running[]]>(connection, [lockRunning(ids)]);
  if (locked.length === 0) return { leaves: [], lanes: new Set<number>() };
  const check = format(`SELECT execution FROM running WHERE execution IN (?) AND ${condition}`, [locked.map(({ execution }) => execution)]);
  const [still = []] = await rows<[{ execution: Buffer }[]]>(connection, [check]);
  const wanted = new Set(still.map(({ execution }) => hex(execution)));
  const going = locked.filter(({ execution }) => wanted.has(hex(execution)));
  const contexts = await contextsOf(connection, deps.specs, going);
  const leaves = going.flatMap((row): Leave[] => {
    const context = contexts.get(hex(row.execution));
    return context ? [{ row, told: context.told, verdict: decide(claimedOf(row), context.situation), endTime: row.now }] : [];
  });
  const { statements, lanes } = await finish(connection, leaves);
  const orphans = going.filter(({ execution }) => !contexts.has(hex(execution))); // their history was dropped
  if (going.length > 0) await rows(connection, [...statements, ...takeOut([...leaves.map(({ row }) => row), ...orphans])]);
  failpoint('overdue.before_commit');
  return { leaves, lanes };
}
