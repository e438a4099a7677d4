// The event loop's delay: a process that is stuck is not ready.
import { monitorEventLoopDelay } from 'node:perf_hooks';

const LIMIT_MS = 1000;

export function watchEventLoop(): () => Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  return async () => {
    const worst = delay.percentile(90) / 1e6;
    delay.reset();
    if (worst > LIMIT_MS) throw new Error(`the event loop is ${Math.round(worst)} ms late`);
  };
}
