// plan.ts: which ticks of a schedule are due, which are too late, and which comes next.
import { createHash } from 'node:crypto';
import type { Times } from './spec.ts';

// A time of the spec, and when it starts: jitter later.
export interface Planned {
  tickTime: Date;
  dueTime: Date;
}
export interface Missed extends Planned {
  count: number; // the last of so many
  from: Date; // the first of them
}
export interface Due {
  ticks: Planned[];
  missed: Missed | undefined;
  next: Planned | undefined; // what comes after those, due or not
}
export interface Plan {
  id: string; // the schedule
  times: Times;
  jitterMs: number;
  catchUpMs: number;
}

// More are taken the next time: a transaction stays short, however long the scheduler was away.
export const MOST_TICKS = 50;
export const MOST_LOOKS = 500;
const MOST_STEPS = 5000; // of a plan, which is made for one look at a schedule

// The first tick after a time.
export function first({ id, times, jitterMs }: Plan, after: Date): Planned | undefined {
  const tickTime = times.next(after);
  return tickTime && planned(id, tickTime, jitterMs > 0 ? times.next(tickTime) : undefined, jitterMs);
}

// Goes on from the tick that is next as far as ticks are due.
export function due(plan: Plan, from: Planned, now: Date): Due {
  const ticks: Planned[] = [];
  let missed: Missed | undefined;
  let next: Planned | undefined = from;
  for (
    let look = 0;
    next && next.dueTime <= now && ticks.length < MOST_TICKS && look < MOST_LOOKS && plan.times.cost() < MOST_STEPS;
    look += 1
  ) {
    const isLate = now.getTime() - next.dueTime.getTime() > plan.catchUpMs;
    if (isLate) missed = { ...next, count: (missed?.count ?? 0) + 1, from: missed?.from ?? next.tickTime };
    else ticks.push(next);
    next = first(plan, next.tickTime);
  }
  return { ticks, missed, next };
}

// Jitter is a function of schedule and time, so that whoever reckons it comes to the same; it never reaches the tick that follows.
function planned(id: string, tickTime: Date, following: Date | undefined, jitterMs: number): Planned {
  const at = tickTime.getTime();
  const room = following ? Math.min(jitterMs, following.getTime() - at) : jitterMs;
  return { tickTime, dueTime: new Date(at + Math.floor(fraction(`${id} ${at}`) * room)) };
}

// From 0 to below 1.
const fraction = (text: string): number => createHash('sha256').update(text).digest().readUIntBE(0, 6) / 2 ** 48;
