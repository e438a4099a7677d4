// QueueService: the queues of a workspace, what waits in them, and what they hand out.
import { Queue, Queue_State as State } from '#gen/millrace/executions/v1/queue.ts';
import type { QueueServiceService } from '#gen/millrace/executions/v1/queue_service.ts';
import type { Db, Pool } from '#platform/db.ts';
import { invalid, notFound } from '#platform/errors.ts';
import type { Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import { maskedFields } from '#platform/mask.ts';
import type { Cancel } from '../cancel.ts';
import type { QueueRow } from '../queue-store.ts';
import * as store from '../queue-store.ts';
import { labelsOf } from '../selector.ts';

export interface Deps {
  db: Db;
  pool: Pool;
  cancel: Cancel;
  ring(lanes: ReadonlySet<number>): void;
}

const UPDATABLE = ['weight', 'max_running', 'rate_per_second', 'selector'] as const;
const PAGE = 100;
const AT_ONCE = 8;

export const handlers = ({ db, pool, cancel, ring }: Deps): Handlers<QueueServiceService> => {
  async function get(workspace: Buffer, name: string): Promise<Queue> {
    const [row] = await store.list(pool, workspace, name);
    if (!row) throw notFound('queue', name);
    return messageOf(row);
  }

  async function move(workspace: Buffer, name: string, state: QueueRow['state']): Promise<Queue> {
    const lanes = await store.change(db, workspace, name, { state });
    if (state !== 'PAUSED') ring(lanes);
    return get(workspace, name);
  }

  return {
    async listQueues(_, { caller }) {
      return { queues: (await store.list(pool, toBytes('workspace', caller.workspace))).map(messageOf) };
    },

    getQueue: async ({ name }, { caller }) => get(toBytes('workspace', caller.workspace), name),

    async updateQueue({ queue = Queue.fromPartial({}), updateMask }, { caller }) {
      if (queue.name === '') throw invalid('queue.name', 'must be the name of a queue');
      const fields = new Set(maskedFields(updateMask, queue, UPDATABLE, Queue));
      const workspace = toBytes('workspace', caller.workspace);
      const lanes = await store.change(db, workspace, queue.name, {
        ...(fields.has('weight') ? { weight: queue.weight || 1 } : {}),
        ...(fields.has('max_running') ? { max_running: queue.maxRunning ?? null } : {}),
        ...(fields.has('rate_per_second') ? { rate_per_second: queue.ratePerSecond ?? null } : {}),
        ...(fields.has('selector') ? { selector: queue.selector } : {}),
      });
      ring(lanes);
      return get(workspace, queue.name);
    },

    pauseQueue: async ({ name }, { caller }) => move(toBytes('workspace', caller.workspace), name, 'PAUSED'),
    resumeQueue: async ({ name }, { caller }) => move(toBytes('workspace', caller.workspace), name, 'ACTIVE'),
    drainQueue: async ({ name }, { caller }) => move(toBytes('workspace', caller.workspace), name, 'DRAINING'),

    async purgeQueue({ name, reason, pageSize }, { caller }) {
      const workspace = toBytes('workspace', caller.workspace);
      await get(workspace, name);
      const size = pageSize || PAGE;
      const found = await store.waiting(pool, workspace, name, size + 1);
      let cancelled = 0;
      for (let at = 0; at < Math.min(size, found.length); at += AT_ONCE) {
        const some = found.slice(at, Math.min(at + AT_ONCE, size));
        const done = await Promise.allSettled(some.map((id) => cancel(workspace, id, reason)));
        cancelled += done.filter(({ status }) => status === 'fulfilled').length; // the others have ended meanwhile
      }
      return { cancelledCount: cancelled, hasMore: found.length > size };
    },
  };
};

const messageOf = (row: QueueRow): Queue => ({
  name: row.queue,
  state: State[row.state],
  weight: row.weight,
  maxRunning: row.max_running ?? undefined,
  ratePerSecond: row.rate_per_second ?? undefined,
  queuedCount: row.ready + row.waiting,
  timedCount: row.timers,
  runningCount: row.running,
  oldestTime: row.oldest === null ? undefined : new Date(row.oldest / 1000),
  selector: labelsOf(row.queue_selector) ?? {},
});
