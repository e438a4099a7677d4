// The history of a chaos run: a file with one JSON object a line, which the checker reads as well. What was done, what clients saw, and how
// each round was judged. A run that is continued adds to it.
import { appendFileSync, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Happening, readHistory } from './checker.ts';
import type { Recovery } from './faults.ts';
import type { Step } from './plan.ts';

export interface Verdict {
  round: number;
  kills: number;
  wipes: number;
  faults: number; // of all kinds
  executions: number;
  ended: Record<string, number>; // by final state
  lost: number;
  doubled: number;
  gaps: number;
  breaches: string[]; // all of them, in words
  attemptsLost: number; // their server was killed or stood still while they ran
  fenced: number; // reports of servers that were refused as stale: at least so many
  repairs: number; // what the reconciler had to put right
  longestSilenceMs: number; // the longest time in which nothing was accepted
  seconds: number;
}
export type Entry = { seed: number; round: number; time: string } & (
  | ({ what: 'fault'; fault: Step['what'] } & Omit<Step, 'what'>)
  | ({ what: 'recovered' } & Recovery)
  | { what: 'judged'; verdict: Verdict }
);
export interface RecordFile {
  push(...happenings: Happening[]): void;
  note(
    entry:
      | Omit<Extract<Entry, { what: 'fault' }>, 'seed' | 'round' | 'time'>
      | Omit<Extract<Entry, { what: 'recovered' }>, 'seed' | 'round' | 'time'>
      | Omit<Extract<Entry, { what: 'judged' }>, 'seed' | 'round' | 'time'>,
  ): void;
  happenings: Happening[]; // of this round
}

export function openRecord(file: string, seed: number, round: number): RecordFile {
  mkdirSync(dirname(file), { recursive: true });
  const happenings: Happening[] = [];
  const write = (all: readonly object[]) => appendFileSync(file, all.map((one) => `${JSON.stringify(one)}\n`).join(''));
  return {
    happenings,
    push(...more) {
      happenings.push(...more);
      write(more);
    },
    note: (entry) => write([{ time: new Date().toISOString(), seed, round, ...entry }]),
  };
}

const entriesOf = (file: string): Entry[] => (existsSync(file) ? (readHistory(file) as unknown as Entry[]) : []);

// The verdicts and recoveries of a file so far, the last one of each round.
export function readRecord(file: string): { verdicts: Verdict[]; recoveries: Recovery[] } {
  const entries = entriesOf(file);
  const verdicts = new Map(entries.flatMap((one) => (one.what === 'judged' ? [[one.round, one.verdict] as const] : [])));
  return {
    verdicts: [...verdicts.values()],
    recoveries: entries.flatMap((one) => (one.what === 'recovered' ? [{ part: one.part, ms: one.ms }] : [])),
  };
}

const sum = (all: readonly Verdict[], of: (one: Verdict) => number): number => all.reduce((total, one) => total + of(one), 0);

// The totals, for people.
export function report({ verdicts, recoveries }: ReturnType<typeof readRecord>): string {
  const total = (of: (one: Verdict) => number) => sum(verdicts, of);
  const parts = [...new Set(recoveries.map(({ part }) => part))].sort();
  const row = (name: string, all: readonly number[]) => {
    const sorted = [...all].sort((a, b) => a - b);
    const at = (share: number) => `${((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0) / 1000).toFixed(2)} s`;
    return `  ${name.padEnd(14)} ${String(all.length).padStart(5)}   p50 ${at(0.5)}   p99 ${at(0.99)}   max ${at(1)}`;
  };
  const states = new Map<string, number>();
  for (const { ended } of verdicts) for (const [state, count] of Object.entries(ended)) states.set(state, (states.get(state) ?? 0) + count);
  return [
    `${verdicts.length} rounds, ${total(({ seconds }) => seconds).toFixed(0)} s: ${total(({ kills }) => kills)} kills, ${total(({ wipes }) => wipes)} wipes, ${total(({ faults }) => faults)} faults of all kinds`,
    `${total(({ executions }) => executions)} executions: ${[...states].map(([state, count]) => `${count} ${state}`).join(', ')}`,
    `lost ${total(({ lost }) => lost)}, doubled ${total(({ doubled }) => doubled)}, gaps ${total(({ gaps }) => gaps)}, other breaches ${total((one) => one.breaches.length - one.lost - one.doubled - one.gaps)}`,
    `stale writes fenced: at least ${total(({ fenced }) => fenced)}; attempts lost: ${total(({ attemptsLost }) => attemptsLost)}; repairs: ${total(({ repairs }) => repairs)}`,
    `longest time without an acceptance: ${(Math.max(0, ...verdicts.map(({ longestSilenceMs }) => longestSilenceMs)) / 1000).toFixed(1)} s`,
    'killed until ready again:',
    ...parts.map((part) =>
      row(
        part,
        recoveries.filter((one) => one.part === part).map(({ ms }) => ms),
      ),
    ),
    ...(recoveries.length > 0
      ? [
          row(
            'all',
            recoveries.map(({ ms }) => ms),
          ),
        ]
      : []),
    ...verdicts.flatMap(({ round, breaches }) => breaches.map((breach) => `BREACH in round ${round}: ${breach}`)),
  ].join('\n');
}
