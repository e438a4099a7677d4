// What was known of automations at the last look, so that most batches are accepted in one round trip: their commit begins by comparing, and
// writes nothing when anything is not as it was. Only what is simple is remembered: nothing is halted, no limit, no selector.
import { LRUCache } from 'lru-cache';
import type { Asked } from './accept.ts';
import type { Looked } from './accept-store.ts';
import { type Clock, openClock } from './engine/clock.ts';
import type { Automation } from './plan.ts';

export interface Memory {
  keep(items: readonly Asked[], looked: Looked): void;
  recall(items: readonly Asked[]): Looked | undefined; // all that a look would tell, as far as is known
  forget(items: readonly Asked[]): void;
  clock: Clock;
}

const MOST = 10_000;

export function openMemory(): Memory {
  const known = new LRUCache<string, Automation>({ max: MOST });
  const clock = openClock();

  return {
    clock,
    keep(items, { time, automations, shut }) {
      clock.hear(time);
      for (const { workspace, draft } of items) {
        const id = draft.automation.toString('hex');
        const found = automations.get(id);
        const isShut = shut.length > 0;
        if (found && !isShut && isSimple(found) && found.workspace.equals(workspace)) known.set(id, found);
        else known.delete(id);
      }
    },
    recall(items) {
      const time = clock.now();
      if (!time) return undefined;
      const automations = new Map<string, Automation>();
      for (const { workspace, draft, key } of items) {
        const id = draft.automation.toString('hex');
        const found = known.get(id);
        if (key || draft.unique || draft.scheduleTime || !found?.workspace.equals(workspace)) return undefined;
        automations.set(id, found);
      }
      return { time, automations, keys: [], shut: [] };
    },
    forget(items) {
      for (const { draft } of items) known.delete(draft.automation.toString('hex'));
    },
  };
}

const isSimple = ({ disabled, deleted, concurrency, selector }: Automation): boolean => !disabled && !deleted && !concurrency && !selector;
