// scheduler.ts: claims ticks as they become due. Any number of processes may do so: whoever locks a schedule decides its ticks, the database's
// clock says which are due, and a tick is a row that exists once.
import type { Db } from '#platform/db.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { repeat } from '#platform/pause.ts';
import { advance } from './advance.ts';
import * as system from './schedule-system.ts';
import * as schedules from './store/schedules.ts';

interface Deps {
  db: Db;
  log: Logger;
  settings: { maxBuffered: number };
  claimed(): void; // after each commit
}
export interface Worker {
  wake(): void;
  stop(): Promise<void>;
}

const AT_ONCE = 4;
const IDLE_MS = 1000;

export function runScheduler(deps: Deps): Worker {
  const stopping = new AbortController();
  return timed(
    deps,
    'schedules',
    async () => {
      const lane = async () => {
        while (!stopping.signal.aborted && (await claimNext(deps)));
      };
      if (await claimNext(deps)) await Promise.all(Array.from({ length: AT_ONCE }, lane));
    },
    stopping,
  );
}

// Repeats work when something is due by the database's clock, at the latest after a second.
export function timed(
  { db, log }: Pick<Deps, 'db' | 'log'>,
  table: 'schedules' | 'schedule_ticks',
  work: () => Promise<void>,
  stopping: AbortController,
): Worker {
  let timer: NodeJS.Timeout | undefined;
  const turn = async () => {
    clearTimeout(timer);
    await work();
    timer = setTimeout(() => worker.wake(), await system.pauseUntilDue(db, table, IDLE_MS));
  };
  const worker = repeat(IDLE_MS, turn, log);
  return {
    wake: worker.wake,
    async stop() {
      stopping.abort();
      await worker.stop();
      clearTimeout(timer);
    },
  };
}

// Claims what is due of one schedule. False when none is due, or others are at those that are.
async function claimNext({ db, settings, claimed }: Deps): Promise<boolean> {
  const isDone = await db.transaction(async (tx) => {
    const due = await system.lockDue(tx);
    if (!due) return false;
    const kept = await schedules.lock(tx, due.workspace, due.id);
    await advance(tx, due.workspace, kept, await schedules.clock(tx), settings);
    return true;
  });
  if (isDone) {
    failpoint('schedules.claimed');
    claimed();
  }
  return isDone;
}
