// The intake: what servers tell becomes durable in shared commits behind the fence, and only then it is confirmed and shown.
import { openBatch } from '#platform/batch.ts';
import type { Pool, PoolConnection } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import { isDatabaseAway } from '#platform/faults.ts';
import { fromBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { claimedOf, contextsOf, type Ends, type Finish, finish, type Leave, type Running, takeOut } from '../engine/finish.ts';
import { afterLoss, afterRefusal, afterResult } from '../engine/machine.ts';
import type { LoadSpecs } from '../engine/specs.ts';
import { atOnce, hex, isUnlike, rows } from '../engine/sql.ts';
import type { IntakeMemory, Recalled } from './intake-memory.ts';
import * as store from './intake-store.ts';
import * as metrics from './metrics.ts';
import { outcomeOf, startOf, usageOf, within } from './outcome.ts';
import { following, merge, type Reply, type Report, sizeOf } from './report.ts';

export interface Intake {
  add(report: Report): Promise<Reply>;
  idle(): Promise<void>;
  stop(): void; // does not wait for a database that is away any longer
}
// What was written about one execution.
export interface Written {
  row: Running;
  lines: number; // new ones
  bytes: number; // of them
  isChanged: boolean; // its state or progress
  leave: Leave | undefined;
}
interface Deps {
  pool: Pool;
  log: Logger;
  owner: Buffer;
  specs: LoadSpecs;
  memory: IntakeMemory;
  held(): number; // claims that servers have
  written(all: readonly Written[], lanes: ReadonlySet<number>, ends: Ends): void; // after each commit
}
interface Told {
  row: Running;
  report: Report;
  lines: NonNullable<ReturnType<typeof following>>;
  start: ReturnType<typeof startOf> | undefined;
}

const NOT_YET_MS = 2000; // until a server is asked again for what it lacked
const RETRY_MS = 200;
const LINGER_MS = 20; // a report costs a third when it shares its commit with a few others
const FEW = 3; // claims: not much comes of them

export function openIntake(deps: Deps): Intake {
  const stopped = new AbortController();

  // Nothing is lost while the database is away: servers keep what is not confirmed, and the queue waits in order.
  async function run(reports: readonly Report[]): Promise<Reply[]> {
    for (;;) {
      try {
        return await commit(deps, reports);
      } catch (error) {
        if (stopped.signal.aborted || !isDatabaseAway(error)) throw error;
        await pause(RETRY_MS, stopped.signal);
      }
    }
  }

  const batch = openBatch<Report, Reply>({
    name: 'dispatcher.intake',
    run,
    sizeOf,
    maxQueue: Number.POSITIVE_INFINITY,
    lingerMs: LINGER_MS,
    mayLinger: () => deps.held() >= FEW,
  });
  return {
    // What cannot be written would come again and again: the attempt counts as lost.
    add: (report) =>
      batch.add(report).catch((error) => {
        if (stopped.signal.aborted || isDatabaseAway(error) || report.given) throw error;
        deps.log.error({ error, execution: fromBytes('execution', report.execution) }, 'what an execution did cannot be written');
        const { server, epoch, execution, claimId } = report;
        return batch.add({ server, epoch, execution, claimId, given: 'LOST' });
      }),
    idle: batch.idle,
    stop: () => stopped.abort(),
  };
}

// Safe to repeat: what was committed before is recognized by its claim and its line numbers.
async function commit(deps: Deps, reports: readonly Report[]): Promise<Reply[]> {
  const groups = new Map<string, Report[]>();
  for (const report of reports) {
    const key = keyOf(report);
    groups.set(key, [...(groups.get(key) ?? []), report]);
  }
  const connection = await deps.pool.getConnection();
  try {
    const replies = await write(deps, connection, [...groups.values()].map(merge));
    return reports.map((report) => replies.get(keyOf(report)) ?? { kind: 'STALE' });
  } catch (error) {
    await connection.query('ROLLBACK').catch(() => connection.destroy());
    throw error;
  } finally {
    connection.release();
  }
}

const keyOf = ({ claimId, epoch, server }: Report): string => `${hex(claimId)}.${hex(server)}.${epoch}`;

async function write(deps: Deps, connection: PoolConnection, reports: readonly Report[]): Promise<Map<string, Reply>> {
  const known = deps.memory.recall(reports);
  return (known && (await endAtOnce(deps, connection, known))) ?? (await writeFenced(deps, connection, reports));
}

// In one round trip, by what their claims knew. Undefined when that does not do: then nothing was written.
async function endAtOnce(deps: Deps, connection: PoolConnection, known: readonly Recalled[]): Promise<Map<string, Reply> | undefined> {
  const told = known.map(({ row, report }) => toldOf(row, report));
  const leaves = await leavesOf(
    deps,
    connection,
    told,
    known.map((one) => one.told),
  );
  if (leaves.length < told.length || told.some(({ report }) => report.given)) return undefined;
  const finished = await finish(connection, leaves);
  const servers = new Map(known.map(({ report: { server, epoch } }) => [`${hex(server)}.${epoch}`, { id: server, epoch }]));
  const claims = known.map(({ row }) => row);
  failpoint('intake.recalled');
  try {
    const alike = store.takeAlike(deps.owner, [...servers.values()], claims);
    await atOnce(connection, deps.memory.clock, [...alike, ...store.chunks(told), ...finished.statements]);
  } catch (error) {
    if (!isUnlike(error)) throw error;
    await connection.query('ROLLBACK');
    return undefined;
  }
  return tell(deps, told, leaves, finished, new Map());
}

async function writeFenced(deps: Deps, connection: PoolConnection, reports: readonly Report[]): Promise<Map<string, Reply>> {
  const servers = [...new Map(reports.map(({ server }) => [hex(server), server])).values()];
  const executions = reports.map(({ execution }) => execution);
  const ending = reports.filter(({ result, given }) => result || given).map(({ execution }) => execution);
  const fence = await store.lock(connection, deps.owner, servers, executions, ending);
  failpoint('intake.locked');
  const [locked] = fence.running.values();
  if (locked) deps.memory.clock.hear(locked.now);
  const { told, replies } = pass(fence, reports);
  if (told.length === 0) {
    await connection.query('ROLLBACK');
    return replies;
  }
  const leaves = await leavesOf(deps, connection, told, fence.told);
  const leaving = new Set(leaves.map((leave) => hex(leave.row.execution)));
  const staying = told.filter(({ row }) => !leaving.has(hex(row.execution)));
  const finished = await finish(connection, leaves);
  failpoint('intake.before_commit');
  await rows(connection, [
    ...store.chunks(told),
    ...store.stays(staying.map(stayOf)),
    ...finished.statements,
    ...takeOut(leaves.map(({ row }) => row)),
    'COMMIT',
  ]);
  return tell(deps, told, leaves, finished, replies);
}

// After the commit.
function tell(
  deps: Deps,
  told: readonly Told[],
  leaves: readonly Leave[],
  { lanes, ends }: Pick<Finish, 'lanes' | 'ends'>,
  replies: Map<string, Reply>,
): Map<string, Reply> {
  failpoint('intake.after_commit');
  const leaving = new Map(leaves.map((leave) => [hex(leave.row.execution), leave]));
  for (const { row, report, lines } of told) {
    const kept: Reply = { kind: 'KEPT', lines: row.line_count + lines.length, isOver: leaving.has(hex(row.execution)) };
    replies.set(keyOf(report), report.given ? { kind: 'STALE' } : kept); // what was given up shall be dropped
  }
  const written = told.map((one) => writtenOf(one, leaving.get(hex(one.row.execution))));
  deps.written(written, lanes, ends);
  failpoint('intake.told');
  return replies;
}

// Who may write: the owner of the server, about the present claim.
function pass(fence: store.Fence, reports: readonly Report[]): { told: Told[]; replies: Map<string, Reply> } {
  const replies = new Map<string, Reply>();
  const told: Told[] = [];
  for (const report of reports) {
    const row = fence.running.get(hex(report.execution));
    const isOwner = fence.epochs.get(hex(report.server)) === report.epoch;
    if (!isOwner) replies.set(keyOf(report), { kind: 'NOT_OWNER' });
    else if (!row?.claim_id.equals(report.claimId) || !row.server.equals(report.server)) replies.set(keyOf(report), { kind: 'STALE' });
    else told.push(toldOf(row, report));
  }
  for (const { kind } of replies.values()) metrics.refused.inc({ why: kind });
  return { told, replies };
}

const writtenOf = ({ row, report, lines, start }: Told, leave: Leave | undefined): Written => ({
  row,
  lines: lines.length,
  bytes: bytesOf(lines),
  isChanged: Boolean(start || report.progress || leave),
  leave,
});

const bytesOf = (lines: readonly { text: string }[]): number => lines.reduce((sum, { text }) => sum + text.length, 0);

const stayOf = ({ row, report, lines, start }: Told): store.Stay => ({
  row,
  start,
  progress: report.progress,
  lineCount: row.line_count + lines.length,
});

// A gap in the lines cannot be closed any more: the server has forgotten them. The attempt counts as lost.
function toldOf(row: Running, report: Report): Told {
  const start = report.started && row.started === 0 ? startOf(report.started, row.claim_time, row.now) : undefined;
  const lines = following(report.lines ?? [], row.line_count);
  if (lines) return { row, report, lines, start };
  metrics.refused.inc({ why: 'GAP' });
  return { row, report: { ...report, result: undefined, given: 'LOST' }, lines: [], start };
}

async function leavesOf(
  { specs }: Deps,
  connection: PoolConnection,
  told: readonly Told[],
  history: store.Fence['told'],
): Promise<Leave[]> {
  const going = told.filter(({ report }) => report.result || report.given);
  const known = new Set(history.map(({ id }) => hex(id)));
  const isKnown = going.every(({ row }) => known.has(hex(row.execution))); // not what is given up only now, for a gap
  const leaving = going.map(({ row }) => row);
  const contexts = await contextsOf(connection, specs, leaving, isKnown ? history : undefined);
  return going.flatMap(({ row, report, lines, start }): Leave[] => {
    const context = contexts.get(hex(row.execution));
    if (!context) return []; // its history was dropped: the deadline takes it away
    const claimed = claimedOf(start ? { ...row, started: 1 } : row);
    const startTime = start?.time ?? row.claim_time;
    const progress = report.progress && store.progressOf(report.progress);
    const shared = { row, told: context.told, start, progress };
    if (report.result) {
      // A result implies a start, even if the server did not say so: its input was refused, for example.
      const isStarted = claimed.started;
      const began = isStarted
        ? start
        : startOf({ time: report.result.time, sandboxTier: 0, isolation: 1, limits: [] }, row.claim_time, row.now);
      const verdict = afterResult({ ...claimed, started: true }, outcomeOf(report.result), context.situation);
      const endTime = within(report.result.time, startTime, row.now);
      return [{ ...shared, start: began, verdict, endTime, usage: usageOf(report.result, row.line_count + lines.length) }];
    }
    const isRefused = report.given !== 'LOST' && !claimed.started;
    const inMs = report.given === 'NOT_YET' ? NOT_YET_MS : 0;
    const verdict = isRefused ? afterRefusal(claimed, inMs) : afterLoss(claimed, context.situation);
    if (!isRefused) metrics.lost.inc({ when: claimed.started ? 'RUNNING' : 'STARTING' });
    return [{ ...shared, verdict, endTime: row.now }];
  });
}
