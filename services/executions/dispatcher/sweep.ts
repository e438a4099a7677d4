// The sweep: rings every lane that has work, and makes the stream of tickets when it is missing. Tickets may be lost; this finds everything again.
import type { Bus } from '#platform/bus.ts';
import type { Pool } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { isOpen } from '../engine/gates.ts';
import { rows } from '../engine/sql.ts';
import { ensureWork, type Renew, ring } from '../engine/tickets.ts';
import * as metrics from './metrics.ts';

// `ours`: what comes of lanes that this dispatcher looks after itself; answers the others.
interface Sweep {
  pool: Pool;
  bus: Bus;
  log: Logger;
  renew: Renew;
  ours(lanes: readonly number[]): number[];
}

export async function sweep({ pool, bus, log, renew, ours }: Sweep): Promise<void> {
  const lanes = `SELECT lane FROM lanes l WHERE EXISTS (SELECT 1 FROM ready r WHERE r.lane = l.lane) AND ${isOpen('l.lane')}`;
  const [found = []] = await rows<[{ lane: number }[]]>(pool, [lanes]);
  failpoint('sweep.found');
  const names = ours(found.map(({ lane }) => lane));
  if (!(await isUp(bus))) return;
  const { jsm } = await bus.jetstream();
  await ensureWork(jsm, bus.prefix, bus.replicas);
  if (await renew(jsm, bus.prefix)) {
    log.warn('tickets were passed over: their consumer is made anew');
    await ensureWork(jsm, bus.prefix, bus.replicas);
  }
  ring(bus, names);
}

async function isUp(bus: Bus): Promise<boolean> {
  try {
    await bus.state();
    return true;
  } catch {
    return false;
  }
}

// How much waits, and since when. Tags are microseconds.
export async function measure({ pool }: { pool: Pool }): Promise<void> {
  const [[row]] = (await rows(pool, ['SELECT COUNT(*) AS n, (UNIX_TIMESTAMP(NOW(6)) * 1e6 - MIN(tag)) / 1e6 AS age FROM ready'])) as [
    [{ n: number; age: string | null }],
  ];
  metrics.ready.set(row.n);
  metrics.readyAge.set(Math.max(0, Number(row.age ?? 0)));
}
