// What every contender does, and how it is measured: the same work, one after another, by one client on the same machine.
import { loadavg } from 'node:os';
import { percentile } from '../figures.ts';

export interface Contender {
  name: string;
  durability: string; // what an answered submit and a finished task survive
  isolation: string; // what stands between two tasks
  burst: number; // no-ops in the burst: enough for a few seconds
  paced?: number; // no-ops one at a time, where each takes seconds; else as many as of the others
  install(): Promise<void>; // throws why it cannot be had here
  open(): Promise<Driver>; // servers and workers with empty data, and a client
}
export interface Driver {
  burst(count: number): Promise<Burst>; // no-ops as fast as they are accepted, until each has its result
  once(): Promise<number>; // one no-op, from submit to the client holding its result, in milliseconds
  sequence(count: number, n: number): Promise<Sequence>; // fibo(n), one after another
  lines?(count: number): Promise<number[]>; // from print to the client holding the line, in milliseconds; only with live logs
  close(): Promise<void>;
}
export interface Burst {
  accepted: number; // a second
  completed: number; // a second, from the first submit on
  lost?: number; // that were accepted and never ran
}
export interface Sequence {
  seconds: number;
  inside: readonly number[]; // of each task by its own clock, in seconds
}
export interface Amounts {
  burst(full: number): number;
  paced: number;
  short: number;
  long: number;
  lines: number;
}
export type Measured = Partial<Record<Measure | 'lost', number>>;
export type Measure = (typeof MEASURES)[number]['key'];

// `more`: the larger the better.
export const MEASURES = [
  { key: 'accepted', title: 'accepted/s', more: true },
  { key: 'completed', title: 'completed/s', more: true },
  { key: 'p50', title: 'result p50 ms', more: false },
  { key: 'p99', title: 'result p99 ms', more: false },
  { key: 'short', title: '40 short s', more: false },
  { key: 'long', title: 'long: over ms', more: false },
  { key: 'line50', title: 'line p50 ms', more: false },
  { key: 'line99', title: 'line p99 ms', more: false },
  { key: 'load', title: 'load', more: false },
] as const;

const EVERY_MS = 50; // 20 a second
const WARM = 20;
const SHORT = 10;
const LONG = 33;

export const FULL: Amounts = { burst: (full) => full, paced: 200, short: 40, long: 10, lines: 100 };
export const QUICK: Amounts = { burst: (full) => Math.max(10, Math.round(full / 40)), paced: 10, short: 5, long: 1, lines: 20 };

export async function measure(driver: Driver, amounts: Amounts, { burst, paced: most = amounts.paced }: Contender): Promise<Measured> {
  const count = amounts.burst(burst);
  const paced = Math.min(amounts.paced, most);
  for (let n = 0; n < Math.min(WARM, paced); n += 1) await driver.once();
  await driver.burst(Math.ceil(count / 10)); // a process that has just started is not what is measured
  const { accepted, completed, lost = 0 } = await driver.burst(count);
  const results: number[] = [];
  for (let n = 0; n < paced; n += 1) {
    const begin = performance.now();
    results.push(await driver.once());
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, EVERY_MS - (performance.now() - begin))));
  }
  const short = await checked(driver, amounts.short, SHORT);
  const long = await checked(driver, amounts.long, LONG);
  const delays = (await driver.lines?.(amounts.lines)) ?? [];
  return {
    accepted,
    completed,
    lost,
    p50: percentile(results, 0.5),
    p99: percentile(results, 0.99),
    short: short.seconds * (40 / amounts.short),
    long: ((long.seconds - long.inside.reduce((sum, one) => sum + one, 0)) * 1000) / amounts.long,
    ...(delays.length > 0 ? { line50: percentile(delays, 0.5), line99: percentile(delays, 0.99) } : {}),
    load: loadavg()[0] ?? Number.NaN,
  };
}

// Some systems answer equal calls from a cache: then it was not the same work.
async function checked(driver: Driver, count: number, n: number): Promise<Sequence> {
  const done = await driver.sequence(count, n);
  if (done.inside.length !== count) throw new Error(`${done.inside.length} of ${count} tasks ran`);
  return done;
}
