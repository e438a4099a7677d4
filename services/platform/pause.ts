// Waits; a signal ends the wait early. Never rejects.
export const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done, { once: true });
  });

// A sleep that can be ended early, even before it began.
export function sleeper(): { wake(): void; sleep(ms: number): Promise<void> } {
  let isAwake = false;
  let end: (() => void) | undefined;
  return {
    wake() {
      isAwake = true;
      end?.();
    },
    sleep: (ms) =>
      new Promise((resolve) => {
        if (isAwake) return resolve();
        const timer = setTimeout(resolve, ms);
        end = () => {
          clearTimeout(timer);
          resolve();
        };
      }),
  };
}

// Repeats work until the answer is called; a failure is logged and waits for the next time.
export const every = (ms: number, work: () => Promise<unknown>, log: Warn): (() => Promise<void>) => repeat(ms, work, log).stop;

// The same for work that may also be due at once. A wake during the work makes it run again.
export function repeat(ms: number, work: () => Promise<unknown>, log: Warn): { wake(): void; stop(): Promise<void> } {
  const stopped = new AbortController();
  let woken = new AbortController();
  const loop = (async () => {
    while (!stopped.signal.aborted) {
      woken = new AbortController();
      await work().catch((error) => log.warn({ error }, 'periodic work failed'));
      if (!stopped.signal.aborted) await pause(ms, woken.signal);
    }
  })();
  return {
    wake: () => woken.abort(),
    async stop() {
      stopped.abort();
      woken.abort();
      await loop;
    },
  };
}

interface Warn {
  warn(fields: object, message: string): void;
}
