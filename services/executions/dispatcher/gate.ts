// How much lanes are given: their weight, how many of a queue or of a workspace may run at once, and a queue's rate. What is set is read every
// second; what is left of it is read and written in the claim's own transaction, so that it holds over all dispatchers.
import type { Pool } from '#platform/db.ts';
import { refill } from '../engine/gates.ts';
import { type Connection, format, hex, rows } from '../engine/sql.ts';
import type { Ask } from './claim-store.ts';

export interface Gate {
  load(): Promise<void>;
  shares(lanes: readonly number[], free: number, quantum: number): number[]; // of free places, by weight
  isCapped(lane: number): boolean;
  beside(lanes: Iterable<number>): Set<number>; // those where there is room now that something of these has ended
  // Begins a transaction; answers what the lanes may be given, and the statements that write down what they were.
  allow(connection: Connection, asks: readonly Ask[]): Promise<{ asks: Ask[]; spend(taken: ReadonlyMap<number, number>): string[] }>;
}
interface Settings {
  lane: number;
  own: number; // the queue's own lane, where its tokens are counted
  workspace: Buffer;
  weight: number;
  max_running: number | null;
  rate_per_second: number | null;
  quota: number | null; // of what runs in the workspace
}
interface Left {
  lane: number;
  max_running: number | null;
  rate_per_second: number | null;
  tokens: number | null;
  seconds: string | number | null; // since they were counted
  running: number;
}
interface Used {
  workspace: Buffer;
  quota: number;
  running: number;
}

const LIMITED = 'l.max_running IS NOT NULL OR l.rate_per_second IS NOT NULL';
const isLimited = ({ max_running, rate_per_second, quota }: Settings) => max_running !== null || rate_per_second !== null || quota !== null;

// `maxRunning`: of each workspace for which nothing else is set; null for any number.
export function openGate(pool: Pool, maxRunning: number | null = null): Gate {
  let known = new Map<number, Settings>();
  const capped = (lane: number): Settings | undefined => {
    const found = known.get(lane);
    return found && isLimited(found) ? found : undefined;
  };
  return {
    async load() {
      // The rows are what claims of a workspace wait for each other at.
      const all = 'INSERT IGNORE INTO quotas (workspace) SELECT DISTINCT workspace FROM lanes';
      const loaded = await rows<unknown[][]>(pool, [...(maxRunning === null ? [] : [all]), format(SETTINGS, [maxRunning, maxRunning])]);
      known = new Map((loaded.at(-1) as Settings[]).map((row) => [row.lane, row]));
    },
    shares(lanes, free, quantum) {
      const weights = lanes.map((lane) => known.get(lane)?.weight ?? 1);
      const all = weights.reduce((sum, weight) => sum + weight, 0);
      return weights.map((weight) => Math.max(1, Math.min(quantum * weight, Math.floor((free * weight) / all))));
    },
    isCapped: (lane) => capped(lane) !== undefined,
    beside(lanes) {
      const freed = [...new Set(lanes)].flatMap((lane) => capped(lane) ?? []);
      if (freed.length === 0) return new Set();
      const queues = new Set(freed.map(({ own }) => own));
      const workspaces = new Set(freed.filter(({ quota }) => quota !== null).map(({ workspace }) => hex(workspace)));
      const near = [...known.values()].filter(({ own, workspace }) => queues.has(own) || workspaces.has(hex(workspace)));
      return new Set(near.map(({ lane }) => lane));
    },
    async allow(connection, asks) {
      const limits = asks.flatMap(({ lane }) => capped(lane) ?? []);
      const workspaces = limits.filter(({ quota }) => quota !== null).map(({ workspace }) => workspace);
      const reads = [
        format(LEFT, [limits.map(({ own }) => own)]),
        ...(workspaces.length > 0 ? [format(USED, [maxRunning, workspaces])] : []),
      ];
      const [, lefts, useds = []] = (await rows(connection, ['BEGIN', ...reads])) as [unknown, Left[], Used[]?];
      const left = new Map(lefts.map((row) => [row.lane, { ...row, tokens: tokensOf(row) }]));
      const rooms = new Map<string, number>();
      for (const one of left.values()) rooms.set(`${one.lane}`, roomOf(one));
      for (const { workspace, quota, running } of useds) rooms.set(hex(workspace), quota - running);
      return {
        asks: asks.flatMap((ask) => {
          const limit = capped(ask.lane);
          const names = limit ? [`${limit.own}`, hex(limit.workspace)] : [];
          const count = Math.min(ask.count, ...names.map((name) => rooms.get(name) ?? Number.POSITIVE_INFINITY));
          for (const name of names) rooms.set(name, (rooms.get(name) ?? Number.POSITIVE_INFINITY) - Math.max(0, count));
          return count > 0 ? [{ ...ask, count }] : [];
        }),
        spend: (taken) =>
          [...left.values()].flatMap(({ lane, tokens }) => {
            const spent = [...taken].reduce((sum, [one, count]) => sum + ((known.get(one)?.own ?? one) === lane ? count : 0), 0);
            if (tokens === null || spent === 0) return [];
            return [format('UPDATE lanes SET tokens = ?, token_time = NOW(6) WHERE lane = ?', [tokens - spent, lane])];
          }),
      };
    },
  };
}

const SETTINGS = `SELECT l.lane, COALESCE(o.lane, l.lane) AS own, l.workspace, l.weight, l.max_running, l.rate_per_second,
    COALESCE(q.running, ?) AS quota
  FROM lanes l LEFT JOIN lanes o ON o.workspace = l.workspace AND o.queue = l.queue AND o.selector = 'any' AND o.fairness_key = ''
  LEFT JOIN quotas q ON q.workspace = l.workspace
  WHERE l.weight <> 1 OR ${LIMITED} OR COALESCE(q.running, ?) IS NOT NULL`;

// The queues stay locked until the claim is committed: two dispatchers do not spend the same.
const LEFT = `SELECT l.lane, l.max_running, l.rate_per_second, l.tokens, TIMESTAMPDIFF(MICROSECOND, l.token_time, NOW(6)) / 1e6 AS seconds,
    (SELECT COUNT(*) FROM running r JOIN lanes s ON s.lane = r.lane WHERE s.workspace = l.workspace AND s.queue = l.queue) AS running
  FROM lanes l WHERE l.lane IN (?) AND (${LIMITED}) ORDER BY l.lane FOR UPDATE`;

// So do the workspaces, behind their queues.
const USED = `SELECT q.workspace, COALESCE(q.running, ?) AS quota, (SELECT COUNT(*) FROM running r WHERE r.workspace = q.workspace) AS running
  FROM quotas q WHERE q.workspace IN (?) ORDER BY q.workspace FOR UPDATE`;

const tokensOf = ({ tokens, seconds, rate_per_second: rate }: Left): number | null =>
  rate === null ? null : refill({ tokens, seconds: Number(seconds ?? 0), rate });

function roomOf(left: Left): number {
  const byRunning = left.max_running === null ? Number.POSITIVE_INFINITY : left.max_running - left.running;
  return Math.min(byRunning, left.tokens === null ? Number.POSITIVE_INFINITY : Math.floor(left.tokens));
}
