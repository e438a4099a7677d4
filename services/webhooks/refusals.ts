// refusals.ts: the log of requests that did not prove where they come from. It is written after the answer, so that an answer takes as long
// for a hook that exists as for one that does not; and only so much of it that nobody can fill the database.
import type { Db } from '#platform/db.ts';
import { newId } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { repeat } from '#platform/pause.ts';
import type { Found } from './hook-system.ts';
import * as deliveries from './store/deliveries.ts';

export interface Refusals {
  note(found: Found, why: string, remoteAddress: string): void;
  stop(): Promise<void>;
}

const FLUSH_MS = 500;
const WINDOW_MS = 60_000;
const MAX_PER_WINDOW = 30; // of one hook
const MAX_WAITING = 1000;

export function openRefusals(db: Db, log: Logger, now: () => number = Date.now): Refusals {
  const counts = new Map<string, number>();
  let windowStart = now();
  let waiting: deliveries.Kept[] = [];

  async function flush(): Promise<void> {
    const rows = waiting;
    waiting = [];
    for (const row of rows) await db.transaction((tx) => deliveries.insert(tx, row));
  }
  const { wake, stop } = repeat(FLUSH_MS, flush, log);
  return {
    note({ hook, workspace }, why, remoteAddress) {
      if (now() - windowStart > WINDOW_MS) {
        windowStart = now();
        counts.clear();
      }
      const count = (counts.get(hook.id) ?? 0) + 1;
      counts.set(hook.id, count);
      if (count > MAX_PER_WINDOW || waiting.length >= MAX_WAITING) return;
      const { id: hookId, automationId, revision, runAsId: creatorId } = hook;
      const kept = { workspace, hookId, automationId, revision, creatorId, id: newId('delivery'), state: 'REFUSED' as const };
      const error = `SIGNATURE_INVALID: ${why}`;
      waiting.push({
        ...kept,
        senderDeliveryId: '',
        input: undefined,
        error,
        request: undefined,
        headers: {},
        remoteAddress,
        redeliveryOf: undefined,
      });
      wake();
    },
    async stop() {
      await stop();
      await flush().catch((error) => log.warn({ error }, 'some refused requests are not logged'));
    },
  };
}
