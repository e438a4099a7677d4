// What goes wrong in a round of chaos, and when: a pure function of a seed.
import { createHash } from 'node:crypto';
import type { Cut } from './link.ts';

export const PARTS = ['api', 'dispatcher', 'dispatcher-2', 'automation', 'automation-2', 'edge', 'broker', 'database'] as const;
export const LINKS = [
  'api-database',
  'dispatcher-database',
  'dispatcher-2-database',
  'api-broker',
  'dispatcher-broker',
  'dispatcher-2-broker',
  'dispatcher-api',
  'dispatcher-2-api',
  'automation-api',
  'automation-2-api',
  'dispatchers-automation',
  'dispatchers-automation-2',
  'edge-api',
] as const;
export type PartName = (typeof PARTS)[number];
export type LinkName = (typeof LINKS)[number];

export type Fault =
  | { what: 'kill'; part: PartName } // SIGKILL, and started again
  | { what: 'stop'; part: PartName; ms: number } // SIGSTOP, later SIGCONT
  | { what: 'cut'; link: LinkName; how: Cut; ms: number }
  | { what: 'wipe' } // the broker is killed and loses its store
  | { what: 'fill'; ms: number }; // the disk of database and broker is full
export type Step = Fault & { afterMs: number }; // after the step before has begun

export interface Amounts {
  kills: number;
  stops: number;
  cuts: number;
  wipes: number;
  fills: number;
}

const GAP_MS = 1000; // between two steps at most
const STOP_MS = 7000; // longer than the leases of the rig
const CUT_MS = 5000;
const FILL_MS = 4000;

export type Random = () => number; // from 0 to below 1

// The same numbers for the same seed, on every machine.
export function randomOf(seed: string): Random {
  let count = 0;
  return () => {
    count += 1;
    return createHash('sha256').update(`${seed} ${count}`).digest().readUInt32BE(0) / 2 ** 32;
  };
}

export const pick = <T>(random: Random, all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;

export function planOf(seed: number, round: number, amounts: Amounts): Step[] {
  const random = randomOf(`${seed} ${round}`);
  const upTo = (ms: number) => Math.ceil(random() * ms);
  const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, index) => make(index));
  const faults: Fault[] = [
    ...times(amounts.kills, (index): Fault => ({ what: 'kill', part: PARTS[index % PARTS.length] ?? 'api' })), // each as often
    ...times(amounts.stops, (): Fault => ({ what: 'stop', part: pick(random, PARTS), ms: upTo(STOP_MS) })),
    ...times(
      amounts.cuts,
      (): Fault => ({ what: 'cut', link: pick(random, LINKS), how: pick(random, ['silent', 'refused']), ms: upTo(CUT_MS) }),
    ),
    ...times(amounts.wipes, (): Fault => ({ what: 'wipe' })),
    ...times(amounts.fills, (): Fault => ({ what: 'fill', ms: upTo(FILL_MS) })),
  ];
  const order = faults.map((fault) => ({ fault, at: random() })).sort((a, b) => a.at - b.at);
  return order.map(({ fault }) => ({ ...fault, afterMs: upTo(GAP_MS) }));
}

// What a fault takes away: two faults of one thing follow each other.
export function thingOf(fault: Fault): string {
  if (fault.what === 'cut') return fault.link;
  if (fault.what === 'wipe') return 'broker';
  return fault.what === 'fill' ? 'disk' : fault.part;
}
