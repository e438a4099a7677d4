// Lanes that are claimed without tickets. Most are those whose executions run on some servers only. Their tickets come to any dispatcher: it tells
// all of them, and each keeps such a lane until one of its servers that match has credits. Nothing is asked of the database about other lanes: a claim of those refuses a lane with labels by itself.
import type { Bus } from '#platform/bus.ts';
import type { Pool } from '#platform/db.ts';
import type { Fresh } from '../engine/fresh.ts';
import * as notices from '../engine/notices.ts';
import { rows } from '../engine/sql.ts';
import { type Labels, labelsOf, matches, nameOf } from '../selector.ts';
import type { Session } from './session.ts';

export interface Selectors {
  load(): Promise<void>;
  of(lane: number): Labels | undefined; // undefined: any server
  hasDue(): boolean;
  claim(lanes: readonly number[], fresh?: readonly Fresh[]): Promise<void>; // and those that are due
  offer(lanes: Iterable<number>): number[]; // keeps those that have a selector, answers the others
  keep(lanes: Iterable<number>): void; // has them claimed without tickets
  stop(): void;
}
interface Deps {
  pool: Pool;
  bus: Pick<Bus, 'notify' | 'onNotice'>;
  sessions(): readonly Session[];
  claim(lanes: readonly number[], fresh?: readonly Fresh[]): Promise<void>;
  due(): void; // something may be
  came(): Promise<void>; // lanes that nobody here has seen: what queues say is to be read before they are claimed
}

const MOST = 32; // lanes that are due in one claim
const LOAD = 'SELECT lane, labels FROM lanes WHERE labels IS NOT NULL UNION ALL SELECT MAX(lane), NULL FROM lanes';

export function openSelectors({ pool, bus, sessions, claim, due, came }: Deps): Selectors {
  const known = new Map<number, Labels>();
  const same = new Map<string, Labels>(); // one object for all lanes with a selector
  const waiting = new Set<number>(); // in the order of their coming
  let newest = 0; // lanes up to this one were looked at
  let isFirst = false; // those that are due, in the next claim

  async function load(): Promise<void> {
    const [found] = await rows<[{ lane: number | null; labels: unknown }[]]>(pool, [LOAD]);
    for (const { lane, labels } of found) {
      const selector = labelsOf(labels);
      if (lane !== null && selector) known.set(lane, shared(selector)); // a lane keeps its selector for ever
      newest = Math.max(newest, lane ?? 0);
    }
  }

  function shared(selector: Labels): Labels {
    const name = nameOf(selector);
    const found = same.get(name) ?? selector;
    same.set(name, found);
    return found;
  }

  async function loadNew(lanes: readonly number[]): Promise<void> {
    const last = Math.max(0, ...lanes);
    if (last <= newest) return;
    await Promise.all([load(), came()]);
    newest = Math.max(newest, last);
  }

  // Many lanes may wait for a server that is not there: each selector is looked at once.
  function ready(): number[] {
    const open = sessions().filter((session) => session.credits() > 0);
    if (open.length === 0) return [];
    const answers = new Map<Labels | undefined, boolean>();
    const canStart = (selector: Labels | undefined): boolean => {
      const answer = answers.get(selector) ?? open.some(({ server }) => matches(server.labels, selector));
      answers.set(selector, answer);
      return answer;
    };
    return [...waiting].filter((lane) => canStart(known.get(lane))).slice(0, MOST);
  }

  function offer(lanes: Iterable<number>): number[] {
    const others: number[] = [];
    for (const lane of lanes) {
      if (known.has(lane)) waiting.add(lane);
      else others.push(lane);
    }
    return others;
  }

  const unfollow = bus.onNotice(notices.selected, (data) => {
    const lanes = `${Buffer.from(data)}`.split(',').map(Number).filter(Number.isSafeInteger);
    loadNew(lanes)
      .then(() => {
        offer(lanes);
        due();
      })
      .catch(() => undefined); // the sweep finds them again
  });

  return {
    load,
    of: (lane) => known.get(lane),
    hasDue: () => waiting.size > 0 && ready().length > 0,
    offer,
    keep(lanes) {
      for (const lane of lanes) waiting.add(lane);
      due();
    },
    async claim(lanes, fresh) {
      await loadNew(lanes);
      const others = offer(lanes);
      const told = lanes.filter((lane) => known.has(lane));
      if (told.length > 0) bus.notify(notices.selected, told.join());
      const now = ready();
      for (const lane of now) waiting.delete(lane);
      isFirst = !isFirst; // neither kind takes every credit from the other
      const all = isFirst ? [...now, ...others] : [...others, ...now];
      if (all.length > 0) await claim(all, all.length === lanes.length ? fresh : undefined);
    },
    stop: unfollow,
  };
}
