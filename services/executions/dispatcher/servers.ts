// The servers that this dispatcher owns, each with its session.
import { LRUCache } from 'lru-cache';
import type { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Pool, PoolConnection } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import { isDatabaseAway } from '#platform/faults.ts';
import { fromBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { hex } from '../engine/sql.ts';
import { labelsOf } from '../selector.ts';
import type { Claim } from './ledger.ts';
import * as metrics from './metrics.ts';
import { decide } from './ownership.ts';
import type { Reply, Report } from './report.ts';
import * as store from './server-store.ts';
import { type Owned, openSession, type Session } from './session.ts';

interface Deps {
  me: Buffer;
  pool: Pool;
  log: Logger;
  leaseMs: number;
  serverLeaseMs: number;
  clientAt(endpoint: string): ClientOf<typeof RunnerServiceService>;
  report(report: Report): Promise<Reply>;
  adopted(claims: readonly Claim[]): void;
  capacity(): void; // credits may have come
  opened(): void; // a server has given a sign of life, which its lease does not know yet
  released(): void; // servers have no owner now
}
export interface Servers {
  sessions(): Session[];
  tick(connection: PoolConnection, sent: () => void, contactMs: number): Promise<void>;
  look(): Promise<void>; // compares every open session with running
  stop(): Promise<void>; // hands all over
}

const PATIENCE = 2; // looks at which another dispatcher should have a server, before it gets it
const AWAY_MS = 200;
const MOST_LOST = 10_000;

export function openServers(deps: Deps): Servers {
  const { me, log } = deps;
  const sessions = new Map<string, Session>();
  const given = new LRUCache<string, true>({ max: MOST_LOST });
  const lost = { has: (claim: string) => given.has(claim), add: (claim: string) => void given.set(claim, true) };
  const moving = new Map<string, number>();
  const taking = new Set<string>();
  let isStopped = false;

  // Answers as soon as the database does.
  async function claims(server: Buffer, signal: AbortSignal): Promise<Claim[]> {
    for (;;) {
      try {
        return await store.claims(deps.pool, server);
      } catch (error) {
        if (signal.aborted || !isDatabaseAway(error)) throw error;
        await pause(AWAY_MS, signal);
      }
    }
  }

  function open(owned: Owned): void {
    log.info({ server: fromBytes('server', owned.id), endpoint: owned.endpoint, epoch: owned.epoch }, 'a server is taken over');
    const session = openSession(
      {
        client: deps.clientAt(owned.endpoint),
        dispatcherId: fromBytes('dispatcher', me),
        log,
        claims,
        report: deps.report,
        adopted: deps.adopted,
        changed() {
          count();
          deps.capacity();
        },
        opened: deps.opened,
        disowned: () => drop(owned.id, owned.epoch),
        lost,
      },
      owned,
    );
    sessions.set(hex(owned.id), session);
  }

  // Beside the lease, which must not wait: an owner that stands still in a commit keeps the row locked until the database ends its connection.
  async function take(row: store.ServerRow): Promise<void> {
    const key = hex(row.id);
    if (taking.has(key)) return;
    taking.add(key);
    try {
      failpoint('takeover.before_claim');
      const isMine = await store.claim(deps.pool, me, row, deps.serverLeaseMs);
      failpoint('takeover.after_claim');
      if (isMine && !isStopped) open(ownedOf(row, row.owner_epoch + 1));
    } finally {
      taking.delete(key);
    }
  }

  function drop(id: Buffer, epoch: number): void {
    const session = sessions.get(hex(id));
    if (session?.server.epoch !== epoch) return;
    log.info({ server: fromBytes('server', id), epoch }, 'a server is given up');
    sessions.delete(hex(id));
    session.close().catch((error) => log.warn({ error }, 'a session did not close in order'));
    count();
  }

  function count(): void {
    const all = [...sessions.values()];
    metrics.servers.set({ state: 'open' }, all.filter((session) => session.isOpen()).length);
    metrics.servers.set({ state: 'opening' }, all.filter((session) => !session.isOpen()).length);
    metrics.credits.set(all.reduce((sum, session) => sum + Math.max(0, session.credits()), 0));
  }

  return {
    sessions: () => [...sessions.values()],

    async tick(connection, sent, contactMs) {
      const alive = [...sessions.values()].filter((session) => session.isOpen()).map(({ server }) => server.id);
      const view = await store.renew(connection, me, deps.leaseMs, alive, deps.serverLeaseMs);
      sent();
      if (isStopped) return;
      const mine = [...sessions.values()].map(({ server }) => server);
      const { claim, release, lost } = decide(me, mine, view, contactMs >= deps.leaseMs);
      for (const id of lost) drop(id, sessions.get(hex(id))?.server.epoch ?? -1);
      for (const row of view.servers) moved(row);
      for (const row of claim) take(row).catch((error) => log.warn({ error }, 'a server could not be taken over now'));
      const due = release.filter((id) => (moving.get(hex(id)) ?? 0) + 1 >= PATIENCE);
      const kept = release.filter((id) => !due.includes(id)).map((id) => [hex(id), (moving.get(hex(id)) ?? 0) + 1] as const);
      moving.clear();
      for (const [id, looks] of kept) moving.set(id, looks);
      if (due.length === 0) return;
      await store.release(connection, me, due);
      for (const id of due) drop(id, sessions.get(hex(id))?.server.epoch ?? -1);
      deps.released();
    },

    async look() {
      await Promise.all([...sessions.values()].map((session) => session.look()));
    },

    async stop() {
      isStopped = true;
      const all = [...sessions.values()];
      sessions.clear();
      await Promise.all(all.map((session) => session.close()));
      await store.leave(deps.pool, me);
      deps.released();
    },
  };

  // A server that says that it is elsewhere now, or that a person drained or let go on.
  function moved(row: store.ServerRow): void {
    const session = sessions.get(hex(row.id));
    if (!session) return;
    const { epoch, endpoint, drained } = session.server;
    session.server.drained = row.drained === 1;
    if (endpoint !== row.endpoint) {
      drop(row.id, epoch);
      open(ownedOf(row, epoch));
    } else if (drained && !session.server.drained) deps.capacity();
  }
}

const ownedOf = ({ id, endpoint, labels, drained }: store.ServerRow, epoch: number): Owned => ({
  id,
  endpoint,
  epoch,
  labels: labelsOf(labels) ?? {},
  drained: drained === 1,
});
