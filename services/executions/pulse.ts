// Notices that somebody waits for. A notice says "look" and may be lost: who waits looks again when the time is up, too.
import type { Hearing } from './hearing.ts';

export interface Pulse {
  count(): number; // take it before looking, give it to wait()
  news(): Uint8Array | undefined; // what the last notice carried
  beat(): void;
  wait(seen: number, signal: AbortSignal, ms?: number): Promise<void>; // until it beats again, the time is up or the signal aborts
  close(): void;
}

export function openPulse(bus: Hearing, subjects: readonly string[]): Pulse {
  let count = 0;
  let last: Uint8Array | undefined;
  const waiting = new Set<() => void>();
  const beat = () => {
    count += 1;
    for (const wake of waiting) wake();
  };
  const hear = (data: Uint8Array) => {
    last = data;
    beat();
  };
  const stops = [bus.onReconnect(beat), ...subjects.map((subject) => bus.onNotice(subject, hear))];
  return {
    count: () => count,
    news: () => last,
    beat,
    wait(seen, signal, ms) {
      if (count !== seen || signal.aborted || (ms ?? 1) <= 0) return Promise.resolve();
      return new Promise((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', wake);
          waiting.delete(wake);
          resolve();
        };
        const timer = ms === undefined ? undefined : setTimeout(wake, ms);
        signal.addEventListener('abort', wake, { once: true });
        waiting.add(wake);
      });
    },
    close() {
      for (const stop of stops) stop();
    },
  };
}
