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

// Repeats work until the answer is called; a failure is logged and waits for the next time.
export function every(ms: number, work: () => Promise<unknown>, log: { warn(fields: object, message: string): void }): () => Promise<void> {
  const stopped = new AbortController();
  const loop = (async () => {
    while (!stopped.signal.aborted) {
      await work().catch((error) => log.warn({ error }, 'periodic work failed'));
      await pause(ms, stopped.signal);
    }
  })();
  return async () => {
    stopped.abort();
    await loop;
  };
}
