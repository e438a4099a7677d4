// Claims: for the lanes whose tickets came, the first executions go from ready to running in one transaction, and to servers with credits.
import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { AutomationSpec_Network } from '#gen/millrace/automations/v1/spec.ts';
import type { Job } from '#gen/millrace/runner/v1/job.ts';
import type { Pool, PoolConnection } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { CLAIM_BYTES, type Claimed, type Ready, readyOf, timesOf } from '../engine/claims.ts';
import type { Clock } from '../engine/clock.ts';
import type { Fresh } from '../engine/fresh.ts';
import type { Taken } from '../engine/loans.ts';
import { type LoadSpecs, namesValues, type Spec } from '../engine/specs.ts';
import { hex, isUnlike } from '../engine/sql.ts';
import { type Labels, matches } from '../selector.ts';
import * as store from './claim-store.ts';
import type { openEgress } from './egress.ts';
import type { Gate } from './gate.ts';
import { jobOf } from './jobs.ts';
import * as metrics from './metrics.ts';
import type { Session } from './session.ts';
import type { openValues } from './values.ts';

interface Deps {
  pool: Pool;
  log: Logger;
  me: Buffer;
  quantum: number;
  specs: LoadSpecs;
  gate: Gate;
  selectorOf(lane: number): Labels | undefined; // what its servers must have
  sessions(): readonly Session[];
  startWithEgress: ReturnType<typeof openEgress>;
  startWithValues: ReturnType<typeof openValues>;
  clock: Clock;
  keep(claimed: Claimed): void; // after each commit
  ring(lanes: Iterable<number>): void;
}
export interface Claimer {
  claim(lanes: readonly number[], fresh?: readonly Fresh[]): Promise<void>; // one at a time; `fresh`: all that is known to be there
  startTaken(taken: Taken): Promise<void>; // what took places that were lent
  forgetMarks(): void; // the next claims begin at the head of their lanes
}
interface Assigned {
  session: Session;
  claimed: Claimed;
  spec: Spec;
  runMs: number;
}

const MOST_TOLD = 10_000;
const REPEATS = 20;
const REPEATABLE = new Set([1213, 1205]);
const MARGIN_US = 500_000; // tags of other processes may be committed late, or come from a clock that is slow

export function openClaimer(deps: Deps): Claimer {
  const marks = new Map<number, store.Mark>();
  const told = new LRUCache<string, true>({ max: MOST_TOLD }); // claims by lent places: a notice may come twice

  const usable = (): Session[] => deps.sessions().filter((session) => session.isOpen() && session.credits() > 0);

  // Of a lane with a selector no more than the servers that match can start.
  function askFor(lane: number, share: number, sessions: readonly Session[]): store.Ask[] {
    const selector = deps.selectorOf(lane);
    const fitting = selector ? sessions.filter(({ server }) => matches(server.labels, selector)) : [];
    const count = selector ? Math.min(share, sum(fitting.map((session) => session.credits()))) : share;
    return count > 0 ? [{ lane, count, mark: marks.get(lane), selector }] : [];
  }

  async function attempt(connection: PoolConnection, lanes: readonly number[], rung: Set<number>): Promise<void> {
    const sessions = usable();
    const free = sum(sessions.map((session) => session.credits()));
    if (free === 0) return deps.ring(lanes);
    const shares = deps.gate.shares(lanes, free, deps.quantum);
    const wanted = lanes.slice(0, free).flatMap((lane, index) => askFor(lane, shares[index] ?? 1, sessions));
    deps.ring(lanes.slice(free));
    const isCapped = wanted.some(({ lane }) => deps.gate.isCapped(lane));
    const { asks, spend } = isCapped ? await deps.gate.allow(connection, wanted) : { asks: wanted, spend: undefined };
    const { epochs, sets } = await store.take(connection, deps.me, sessions.map(serverOf), asks, isCapped);
    failpoint('claim.after_select');
    const found = sets.flat();
    if (found[0]) deps.clock.hear(found[0].now);
    metrics.claims.inc({ outcome: found.length > 0 ? 'some' : 'none' });
    if (found.length === 0) {
      await connection.query('ROLLBACK');
      return;
    }
    // Our rows are hidden from others by now: the lane's next turn need not wait for this commit.
    const full = asks.filter(({ lane, count: most }, index) => sets[index]?.length === most && !rung.has(lane)).map(({ lane }) => lane);
    for (const lane of full) rung.add(lane);
    deps.ring(full);
    const owned = sessions.filter(({ server }) => epochs.get(hex(server.id)) === server.epoch);
    await assign(connection, found, owned, spend, new Map(asks.map(({ lane, selector }) => [lane, selector])));
    for (const rows of sets) remember(rows);
  }

  async function assign(
    connection: PoolConnection,
    found: readonly Ready[],
    sessions: readonly Session[],
    spend: Spend | undefined,
    selectors: ReadonlyMap<number, Labels | undefined>,
  ): Promise<void> {
    const assigned = await pick(found, sessions, selectors);
    if (assigned.length === 0) {
      await connection.query('ROLLBACK');
      return;
    }
    failpoint('claim.before_commit');
    try {
      await store.move(connection, assigned.map(claimedOf), spend?.(countByLane(assigned)) ?? []);
    } catch (error) {
      forget(assigned);
      throw error;
    }
    start(assigned);
  }

  // In one round trip, by what the notice told. False when that does not do: then nothing was claimed.
  async function claimFresh(connection: PoolConnection, fresh: readonly Fresh[]): Promise<boolean> {
    const now = deps.clock.now();
    const sessions = usable();
    const free = sum(sessions.map((session) => session.credits()));
    if (!now || fresh.length > free || fresh.some(({ lane }) => deps.gate.isCapped(lane) || deps.selectorOf(lane))) return false;
    const assigned = await pick(
      fresh.map((one) => readyOf(one, now)),
      sessions,
      new Map(),
    );
    try {
      if (assigned.length < fresh.length) throw new Error('not all of it can be started');
      failpoint('claim.before_fresh');
      const servers = new Map(assigned.map(({ session: { server } }) => [hex(server.id), server]));
      await store.moveFresh(connection, deps.me, deps.clock, [...servers.values()], assigned.map(claimedOf));
    } catch (error) {
      forget(assigned);
      if (assigned.length === fresh.length && !isUnlike(error)) throw error;
      await connection.query('ROLLBACK');
      return false;
    }
    metrics.claims.inc({ outcome: 'some' });
    start(assigned);
    return true;
  }

  // Each takes a credit of a server, as far as they go.
  async function pick(
    found: readonly Ready[],
    sessions: readonly Session[],
    selectors: ReadonlyMap<number, Labels | undefined>,
  ): Promise<Assigned[]> {
    const specs = await deps.specs(found.filter(({ workspace }) => workspace !== null));
    const assigned: Assigned[] = [];
    for (const row of pickyFirst(found, selectors)) {
      const { workspace } = row;
      const spec = workspace && specs(row);
      if (!workspace || !spec) {
        deps.log.error({ execution: hex(row.execution) }, 'an execution cannot start: its history or its revision is not there');
        continue;
      }
      const session = freest(sessions, selectors.get(row.lane));
      if (!session) continue; // somebody else owns the servers now, or they are full: the rows stay
      const { expireTime, runMs, deadline } = timesOf(row, spec);
      const claimId = randomBytes(CLAIM_BYTES);
      session.expect(claimId);
      assigned.push({ session, spec, runMs, claimed: { row, workspace, claimId, server: session.server.id, deadline, expireTime } });
    }
    return assigned;
  }

  const forget = (assigned: readonly Assigned[]): void => {
    for (const { session, claimed } of assigned) session.forget(claimed.claimId);
  };

  // After the commit.
  function start(assigned: readonly Assigned[]): void {
    if (assigned.length === 0) return;
    for (const { claimed } of assigned) deps.keep(claimed);
    failpoint('claim.after_commit');
    metrics.claimed.observe(assigned.length);
    const jobs = new Map<Session, Job[]>();
    for (const { session, claimed, spec, runMs } of assigned) {
      const job = jobOf(claimed, spec, runMs);
      const startWithEgress = (one: Job) => deps.startWithEgress({ session, workspace: claimed.workspace, job: one });
      const start = spec.spec.network === AutomationSpec_Network.EGRESS ? startWithEgress : undefined;
      if (namesValues(spec.spec))
        deps.startWithValues({ session, claimed, spec: spec.spec, job, start: start ?? ((whole) => session.start([whole])) });
      else if (start) start(job);
      else jobs.set(session, [...(jobs.get(session) ?? []), job]);
    }
    for (const [session, some] of jobs) session.start(some);
    failpoint('claim.sent');
  }

  // The claims are committed. What is not found here, or was given back meanwhile, is left to whoever compares.
  async function startTaken({ server, now, fresh, claimIds }: Taken): Promise<void> {
    const specs = await deps.specs(fresh);
    const session = deps.sessions().find((one) => one.server.id.equals(server) && one.isOpen());
    if (!session) return;
    const assigned = fresh.flatMap((one, index): Assigned[] => {
      const [row, spec, claimId] = [readyOf(one, now), specs(one), claimIds[index]];
      if (!spec || !claimId) return [];
      const { expireTime, runMs, deadline } = timesOf(row, spec);
      return [{ session, spec, runMs, claimed: { row, workspace: one.workspace, claimId, server, deadline, expireTime } }];
    });
    failpoint('claim.taken');
    const places = Math.max(0, session.credits());
    const known = assigned.filter(({ claimed: { claimId } }) => !told.has(hex(claimId)) && session.expect(claimId));
    for (const { claimed } of known) told.set(hex(claimed.claimId), true);
    start(known.slice(0, places));
    const others = known.slice(places);
    if (others.length > 0) session.giveBack(others.map(({ claimed, spec, runMs }) => jobOf(claimed, spec, runMs)));
  }

  function remember(rows: readonly Ready[]): void {
    const last = rows.at(-1);
    if (last) marks.set(last.lane, { priority: last.priority, tag: last.tag - MARGIN_US });
  }

  return {
    async claim(lanes, fresh = []) {
      const done = metrics.claimSeconds.startTimer();
      const connection = await deps.pool.getConnection();
      const rung = new Set<number>();
      try {
        for (let repeat = 0; ; repeat += 1) {
          try {
            if (repeat === 0 && fresh.length > 0 && (await claimFresh(connection, fresh))) return;
            return await attempt(connection, lanes, rung);
          } catch (error) {
            await connection.query('ROLLBACK').catch(() => connection.destroy());
            if (repeat === REPEATS || !REPEATABLE.has((error as { errno?: number }).errno ?? 0)) throw error;
            await pause(Math.random() * 5 * (repeat + 1));
          }
        }
      } finally {
        connection.release();
        done();
      }
    },
    startTaken,
    forgetMarks: () => marks.clear(),
  };
}

type Spend = Awaited<ReturnType<Gate['allow']>>['spend'];

function countByLane(assigned: readonly Assigned[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { claimed } of assigned) counts.set(claimed.row.lane, (counts.get(claimed.row.lane) ?? 0) + 1);
  return counts;
}

const serverOf = ({ server }: Session): Buffer => server.id;
const claimedOf = ({ claimed }: Assigned): Claimed => claimed;

const freest = (sessions: readonly Session[], selector: Labels | undefined): Session | undefined =>
  sessions
    .filter((session) => session.credits() > 0 && (!selector || matches(session.server.labels, selector)))
    .sort((a, b) => b.credits() - a.credits())[0];

// What can run on some servers only chooses before what can run on any.
const pickyFirst = (found: readonly Ready[], selectors: ReadonlyMap<number, Labels | undefined>): Ready[] => [
  ...found.filter(({ lane }) => selectors.get(lane)),
  ...found.filter(({ lane }) => !selectors.get(lane)),
];

const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0);
