// How many stale reports dispatchers refused. What a process counted is gone with it: it is read often, and the last reading counts.
import type { Stack } from '../../deploy/local/stack.ts';

const EVERY_MS = 500;
const COUNT = /^millrace_dispatcher_reports_refused_total\{why="(?:STALE|NOT_OWNER)"\} (\d+)/gm;

export function watchMetrics(stack: Stack): { stop(): Promise<number> } {
  const last = new Map<string, number>(); // by process
  const first = new Map<string, number>(); // of those that lived before
  const read = async (part: string, counts = last): Promise<void> => {
    const pid = stack.pid(part);
    const answer = await fetch(`${stack.urls.admin[part]}/metrics`, { signal: AbortSignal.timeout(1000) }).catch(() => undefined);
    const text = await answer?.text().catch(() => undefined);
    if (pid === undefined || text === undefined || pid !== stack.pid(part)) return;
    counts.set(
      `${part} ${pid}`,
      [...text.matchAll(COUNT)].reduce((sum, [, count]) => sum + Number(count), 0),
    );
  };
  const parts = Object.keys(stack.urls.admin).filter((part) => part.startsWith('dispatcher'));
  const all = async (counts = last) => void (await Promise.all(parts.map((part) => read(part, counts))));
  const start = all(first);
  const timer = setInterval(() => void all(), EVERY_MS);
  return {
    async stop() {
      clearInterval(timer);
      await start;
      await all();
      return [...last].reduce((sum, [name, count]) => sum + count - (first.get(name) ?? 0), 0);
    },
  };
}
