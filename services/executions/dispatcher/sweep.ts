// The sweep: rings every lane that has work, and makes the stream of tickets when it is missing. Tickets may be lost; this finds everything again.
// While the broker is away, or stores nothing (its disk was full: then only a new start helps it), the lanes are claimed without tickets.
import type { Bus } from '#platform/bus.ts';
import type { Pool } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { isOpen } from '../engine/gates.ts';
import { rows } from '../engine/sql.ts';
import { ensureWork, openRenew, ring, untilRung } from '../engine/tickets.ts';
import * as metrics from './metrics.ts';

interface Deps {
  pool: Pool;
  bus: Bus;
  log: Logger;
  ours(lanes: readonly number[]): number[]; // what comes of lanes that this dispatcher looks after itself; answers the others
}
export interface Sweep {
  run(): Promise<number[]>; // answers the lanes with work for which the broker takes no ticket
  isWithoutTickets(): boolean; // the broker took none when it was last asked
}

export function openSweep({ pool, bus, log, ours }: Deps): Sweep {
  const renew = openRenew();
  let isWithout = false;

  async function ringOrThrow(lanes: readonly number[]): Promise<void> {
    await bus.state();
    const { jsm } = await bus.jetstream();
    await ensureWork(jsm, bus.prefix, bus.replicas);
    if (await renew(jsm, bus.prefix)) {
      log.warn('tickets were passed over: their consumer is made anew');
      await ensureWork(jsm, bus.prefix, bus.replicas);
    }
    const [first, ...others] = lanes;
    if (first === undefined) return;
    await untilRung(bus, first);
    ring(bus, others);
    if (isWithout) log.info('the broker takes tickets again');
    isWithout = false;
  }

  return {
    async run() {
      const open = `SELECT lane FROM lanes l WHERE EXISTS (SELECT 1 FROM ready r WHERE r.lane = l.lane) AND ${isOpen('l.lane')}`;
      const [found = []] = await rows<[{ lane: number }[]]>(pool, [open]);
      failpoint('sweep.found');
      const lanes = ours(found.map(({ lane }) => lane));
      try {
        await ringOrThrow(lanes);
        return [];
      } catch (error) {
        if (!isWithout)
          log.warn({ error }, 'the broker takes no tickets: work is looked for once a second; start it again if its disk was full');
        isWithout = true;
        return lanes;
      }
    },
    isWithoutTickets: () => isWithout,
  };
}

// How much waits, and since when. Tags are microseconds.
export async function measure({ pool }: { pool: Pool }): Promise<void> {
  const [[row]] = (await rows(pool, ['SELECT COUNT(*) AS n, (UNIX_TIMESTAMP(NOW(6)) * 1e6 - MIN(tag)) / 1e6 AS age FROM ready'])) as [
    [{ n: number; age: string | null }],
  ];
  metrics.ready.set(row.n);
  metrics.readyAge.set(Math.max(0, Number(row.age ?? 0)));
}
