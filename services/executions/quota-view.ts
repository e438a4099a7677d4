// What a workspace may use and uses, as accepting knows it: at most some seconds old, so that no execution waits for a statement of its own.
import { LRUCache } from 'lru-cache';
import type { Pool } from '#platform/db.ts';
import type { Admit } from './quota.ts';
import * as store from './quota-store.ts';
import { exceeded, type Limits, over, refusal, type Used } from './quotas.ts';

interface View {
  limits: Limits;
  used: Used;
  time: number;
}
interface Deps {
  pool: Pool;
  defaults: Limits;
  waiting(workspace: Buffer, max: number): Promise<void>; // throws when as many wait
  clock(): Date;
  now?(): number;
}

const FRESH_MS = 2500;
const OLD_MS = 5000;
const FULL_MS = 500;
const MAX_KNOWN = 10_000;

export function openQuotaView({ pool, defaults, waiting, clock, now = () => performance.now() }: Deps): Admit {
  const known = new LRUCache<string, View>({ max: MAX_KNOWN });
  const looking = new Map<string, Promise<View>>();

  function look(workspace: Buffer): Promise<View> {
    const key = workspace.toString('hex');
    const time = now();
    const found =
      looking.get(key) ??
      store
        .standing(pool, workspace)
        .then(({ own, used }) => {
          const view = { limits: over(own, defaults), used: { queued: 0, running: 0, ...used }, time };
          known.set(key, view);
          return view;
        })
        .finally(() => looking.delete(key));
    looking.set(key, found);
    return found;
  }

  return async (workspace) => {
    let view = known.get(workspace.toString('hex'));
    if (!view || now() - view.time > OLD_MS) view = await look(workspace);
    else if (now() - view.time > FRESH_MS) look(workspace).catch(() => undefined); // it is asked again before it is too old
    let full = exceeded(view.limits, view.used);
    if (full && now() - view.time > FULL_MS) {
      view = await look(workspace);
      full = exceeded(view.limits, view.used);
    }
    if (full) throw refusal(full, view.limits, clock());
    await waiting(workspace, view.limits.queued ?? Number.POSITIVE_INFINITY);
  };
}
