// The database's clock as this process knows it: for what is written in one round trip and must be dated before the database has answered.
export interface Clock {
  hear(time: Date): void; // what the database answered just now
  isDue(): boolean; // it should be heard again
  now(): Date | undefined; // never ahead of the database's; undefined while it has not answered for a minute
}

const KNOWN_MS = 60_000;
const DUE_MS = 1000;
const BACK_MS = 5000; // the database's clock was set back: no answer is that long under way

// An answer is the older the longer it was under way, so of all answers the one that makes it latest is the best.
export function openClock(elapsed: () => number = () => performance.now()): Clock {
  let offset = { ms: Number.NEGATIVE_INFINITY, until: Number.NEGATIVE_INFINITY };
  let heard = Number.NEGATIVE_INFINITY;
  return {
    hear(time) {
      heard = elapsed();
      const ms = time.getTime() - elapsed();
      if (ms >= offset.ms || elapsed() > offset.until || offset.ms - ms > BACK_MS) offset = { ms, until: elapsed() + KNOWN_MS };
    },
    isDue: () => elapsed() > heard + DUE_MS,
    now: () => (elapsed() > offset.until ? undefined : new Date(Math.floor(elapsed() + offset.ms))),
  };
}
