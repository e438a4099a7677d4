// watch.ts: the stream of a workspace's tasks as they change.
//
// A notice names a task and says "look": its row is read, and sent when that version was not sent yet. Notices may be lost. So every few
// seconds, and whenever the bus is back, all that changed lately is looked at: no change is missed for longer than that.
import type { WatchTasksResponse } from '#gen/millrace/tasks/v1/task_service.ts';
import type { Bus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import { faultOf } from '#platform/faults.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { withKeepAlive } from '#platform/stream.ts';
import * as events from './events.ts';
import { changedWithin } from './store/list.ts';
import * as tasks from './store/tasks.ts';

interface Deps {
  db: Db;
  bus: Bus;
  log: Logger;
  lookEveryMs?: number;
}

const KEEP_ALIVE_MS = 5000;
const OVERLAP_SECONDS = 10; // a change is committed later than its time says, and clocks differ
const BATCH = 20;

const keepAlive = (): WatchTasksResponse => ({ keepAlive: {} });

// Ends when the caller has gone or the server stops; a fault after the first frame is the last frame.
export async function* watch(deps: Deps, workspace: string, signal: AbortSignal): AsyncGenerator<WatchTasksResponse> {
  let hasBegun = false;
  try {
    for await (const frame of withKeepAlive(changes(deps, workspace, signal), KEEP_ALIVE_MS, keepAlive, signal)) {
      hasBegun = true;
      yield frame;
    }
    if (signal.reason instanceof Fault) throw signal.reason; // the server stops
  } catch (error) {
    if (!hasBegun) throw error;
    const { code, message } = faultOf(error);
    if (!(error instanceof Fault)) deps.log.error({ error }, 'a watch of tasks failed');
    yield { end: { code, message } };
  }
}

async function* changes(
  { db, bus, lookEveryMs = KEEP_ALIVE_MS }: Deps,
  workspace: string,
  signal: AbortSignal,
): AsyncGenerator<WatchTasksResponse> {
  const due = new Set<string>(); // tasks to look at
  let isBehind = false;
  let woken = new AbortController();
  const wake = () => woken.abort();
  signal.addEventListener('abort', wake, { once: true });
  const unsubscribe = events.onNotice(bus, workspace, (id) => {
    due.add(id);
    wake();
  });
  const forget = bus.onReconnect(() => {
    isBehind = true;
    wake();
  });
  try {
    let sent = await changedWithin(db, workspace, OVERLAP_SECONDS); // these changed before the watch began
    let looked = performance.now();
    yield keepAlive(); // from here on, nothing is missed
    while (!signal.aborted) {
      woken = new AbortController();
      if (isBehind || performance.now() - looked >= lookEveryMs) {
        isBehind = false;
        const seconds = OVERLAP_SECONDS + Math.ceil((performance.now() - looked) / 1000);
        looked = performance.now();
        const lately = await changedWithin(db, workspace, seconds);
        for (const [id, version] of lately) if (!isSent(sent, id, version)) due.add(id);
        sent = new Map([...lately.keys()].flatMap((id) => (sent.has(id) ? [[id, sent.get(id)]] : [])));
      }
      const ids = [...due].slice(0, BATCH);
      for (const id of ids) due.delete(id);
      const found = new Map((await tasks.find(db, workspace, ids)).map((task) => [task.id, task]));
      for (const id of ids) {
        const task = found.get(id);
        if (isSent(sent, id, task?.version)) continue;
        sent.set(id, task?.version);
        yield task ? { task } : { deletedId: id };
      }
      if (due.size === 0) await pause(Math.max(0, lookEveryMs - (performance.now() - looked)), woken.signal);
    }
  } finally {
    unsubscribe();
    forget();
    signal.removeEventListener('abort', wake);
  }
}

// A task that was deleted has no version; one that was never sent is not in the map.
const isSent = (sent: ReadonlyMap<string, number | undefined>, id: string, version: number | undefined): boolean =>
  sent.has(id) && sent.get(id) === version;
