// Streams that prove that they live.

// Yields the frames, and a keep-alive frame whenever `everyMs` have passed without one. Ends with the frames, or when the signal aborts.
export async function* withKeepAlive<T>(
  frames: AsyncIterable<T>,
  everyMs: number,
  keepAlive: () => T,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const iterator = frames[Symbol.asyncIterator]();
  const silence = Symbol();
  let next = iterator.next();
  next.catch(() => undefined); // reported where it is awaited
  try {
    while (true) {
      let timer: NodeJS.Timeout | undefined;
      const quiet = new Promise<typeof silence>((resolve) => {
        timer = setTimeout(resolve, everyMs, silence);
      });
      const result = await Promise.race([next, quiet]);
      clearTimeout(timer);
      if (result === silence) {
        if (signal.aborted) return;
        yield keepAlive();
        continue;
      }
      if (result.done) return;
      yield result.value;
      next = iterator.next();
      next.catch(() => undefined);
    }
  } finally {
    await iterator.return?.();
  }
}
