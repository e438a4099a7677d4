// How much lanes are given: their weight, how many of a queue may run at once, and its rate. What queues say is read every second; what is left of
// it is read and written in the claim's own transaction, so that it holds over all dispatchers.
import type { Pool } from '#platform/db.ts';
import { refill } from '../engine/gates.ts';
import { type Connection, format, rows } from '../engine/sql.ts';
import type { Ask } from './claim-store.ts';

export interface Gate {
  load(): Promise<void>;
  shares(lanes: readonly number[], free: number, quantum: number): number[]; // of free places, by weight
  isCapped(lane: number): boolean;
  // Begins a transaction; answers what the lanes may be given, and the statements that write down what they were.
  allow(connection: Connection, asks: readonly Ask[]): Promise<{ asks: Ask[]; spend(taken: ReadonlyMap<number, number>): string[] }>;
}
interface Settings {
  lane: number;
  weight: number;
  max_running: number | null;
  rate_per_second: number | null;
}
interface Left extends Settings {
  tokens: number | null;
  seconds: string | number | null; // since they were counted
  running: number;
}

const LIMITED = 'max_running IS NOT NULL OR rate_per_second IS NOT NULL';

export function openGate(pool: Pool): Gate {
  let known = new Map<number, Settings>();
  const isCapped = (lane: number): boolean => {
    const found = known.get(lane);
    return found !== undefined && (found.max_running !== null || found.rate_per_second !== null);
  };
  return {
    async load() {
      const [found] = await rows<[Settings[]]>(pool, [
        `SELECT lane, weight, max_running, rate_per_second FROM lanes WHERE weight <> 1 OR ${LIMITED}`,
      ]);
      known = new Map(found.map((row) => [row.lane, row]));
    },
    shares(lanes, free, quantum) {
      const weights = lanes.map((lane) => known.get(lane)?.weight ?? 1);
      const all = weights.reduce((sum, weight) => sum + weight, 0);
      return weights.map((weight) => Math.max(1, Math.min(quantum * weight, Math.floor((free * weight) / all))));
    },
    isCapped,
    async allow(connection, asks) {
      const lanes = asks.filter(({ lane }) => isCapped(lane)).map(({ lane }) => lane);
      const [, found] = (await rows(connection, ['BEGIN', format(LEFT, [lanes])])) as [unknown, Left[]];
      const left = new Map(found.map((row) => [row.lane, { ...row, tokens: tokensOf(row) }]));
      return {
        asks: asks.map((ask) => ({ ...ask, count: Math.min(ask.count, roomOf(left.get(ask.lane))) })).filter(({ count }) => count > 0),
        spend: (taken) =>
          [...left.values()].flatMap(({ lane, tokens }) => {
            const spent = taken.get(lane) ?? 0;
            if (tokens === null || spent === 0) return [];
            return [format('UPDATE lanes SET tokens = ?, token_time = NOW(6) WHERE lane = ?', [tokens - spent, lane])];
          }),
      };
    },
  };
}

// The lanes stay locked until the claim is committed: two dispatchers do not spend the same.
const LEFT = `SELECT lane, weight, max_running, rate_per_second, tokens, TIMESTAMPDIFF(MICROSECOND, token_time, NOW(6)) / 1e6 AS seconds,
    (SELECT COUNT(*) FROM running r WHERE r.lane = lanes.lane) AS running
  FROM lanes WHERE lane IN (?) AND (${LIMITED}) ORDER BY lane FOR UPDATE`;

const tokensOf = ({ tokens, seconds, rate_per_second: rate }: Left): number | null =>
  rate === null ? null : refill({ tokens, seconds: Number(seconds ?? 0), rate });

function roomOf(left: Left | undefined): number {
  if (!left) return Number.POSITIVE_INFINITY;
  const byRunning = left.max_running === null ? Number.POSITIVE_INFINITY : left.max_running - left.running;
  return Math.min(byRunning, left.tokens === null ? Number.POSITIVE_INFINITY : Math.floor(left.tokens));
}
