// Shared commits: what waits while one commit is in flight goes into the next, with an outcome for each item.
import { type Context, context, INVALID_SPAN_CONTEXT, ROOT_CONTEXT, trace } from '@opentelemetry/api';
import { exhausted } from './errors.ts';
import { COUNTS, gauge, histogram } from './metrics.ts';
import { openPace } from './pace.ts';
import { pause } from './pause.ts';

interface Options<I, O> {
  name: string;
  run(items: I[]): Promise<(O | Error)[]>; // one transaction; an outcome for each item, in order
  maxItems?: number; // in one commit; default 256
  maxBytes?: number; // in one commit, by sizeOf; default 4 MiB
  maxQueue?: number; // items that may wait before add() is refused; default 10,000
  sizeOf?(item: I): number;
  lingerMs?: number; // while much comes, a commit waits that long for more; default 0
  mayLinger?(): boolean; // false: more is not to be expected, however much comes; default true
}
export interface Batch<I, O> {
  add(item: I): Promise<O>;
  waiting(): number;
  idle(): Promise<void>; // resolves when nothing waits or runs
}
interface Entry<I, O> {
  item: I;
  at: Context; // of the trace that it was added in
  resolve(value: O): void;
  reject(error: unknown): void;
}

const REPEATS = 20;
const PACE_MS = 50; // over which the pace of items is averaged
const BUSY = 3; // items in that time
const REPEATABLE = new Set([1213, 1205]); // deadlock, lock wait timeout
const sizes = histogram('millrace_batch_items', 'Items in a shared commit', ['batch'], COUNTS);
const seconds = histogram('millrace_batch_commit_seconds', 'How long a shared commit took', ['batch']);
const queued = gauge('millrace_batch_waiting', 'Items that wait for a shared commit', ['batch']);

export function openBatch<I, O>({
  name,
  run,
  maxItems = 256,
  maxBytes = 4 * 1024 * 1024,
  maxQueue = 10_000,
  sizeOf = () => 0,
  lingerMs = 0,
  mayLinger = () => true,
}: Options<I, O>): Batch<I, O> {
  let queue: Entry<I, O>[] = [];
  let running: Promise<void> | undefined;
  const pace = openPace(PACE_MS);

  function next(): Entry<I, O>[] {
    let bytes = 0;
    let count = 0;
    for (const { item } of queue) {
      bytes += sizeOf(item);
      if (count > 0 && (count === maxItems || bytes > maxBytes)) break;
      count += 1;
    }
    const batch = queue.slice(0, count);
    queue = queue.slice(count);
    return batch;
  }

  async function commit(items: I[]): Promise<(O | Error)[]> {
    for (let repeat = 0; ; repeat += 1) {
      try {
        return await run(items);
      } catch (error) {
        if (repeat === REPEATS || !REPEATABLE.has((error as { errno?: number }).errno ?? 0)) throw error;
        await pause(Math.random() * 5 * (repeat + 1));
      }
    }
  }

  // An error that is not one item's own is found by halving: only the items that fail alone fail.
  async function settle(batch: Entry<I, O>[]): Promise<void> {
    try {
      const outcomes = await commit(batch.map((entry) => entry.item));
      batch.forEach((entry, index) => {
        const outcome = outcomes[index];
        if (outcome instanceof Error) entry.reject(outcome);
        else entry.resolve(outcome as O);
      });
    } catch (error) {
      if (batch.length === 1 || !isOfItem(error)) {
        for (const entry of batch) entry.reject(error);
        return;
      }
      const half = Math.ceil(batch.length / 2);
      await settle(batch.slice(0, half));
      await settle(batch.slice(half));
    }
  }

  async function drain(): Promise<void> {
    while (queue.length > 0) {
      if (lingerMs > 0 && pace.recent() > BUSY && queue.length < maxItems && mayLinger()) await pause(lingerMs);
      const batch = next();
      queued.set({ batch: name }, queue.length);
      sizes.observe({ batch: name }, batch.length);
      const done = seconds.startTimer({ batch: name });
      await traced(name, batch, () => settle(batch));
      done();
    }
    running = undefined;
  }

  return {
    add(item) {
      if (queue.length >= maxQueue) return Promise.reject(exhausted('too much waits to be written: try again shortly', 1000));
      pace.add();
      return new Promise((resolve, reject) => {
        queue.push({ item, at: context.active(), resolve, reject });
        running ??= new Promise<void>((go) => setImmediate(go)).then(drain);
      });
    },
    waiting: () => queue.length,
    async idle() {
      while (running) await running;
    },
  };
}

// A shared commit belongs to the trace of the first item that has one, and is linked with those of the others.
function traced<T>(name: string, batch: readonly { at: Context }[], work: () => Promise<T>): Promise<T> {
  const [first, ...others] = batch.filter(({ at }) => trace.getSpanContext(at));
  if (!first) return context.with(ROOT_CONTEXT, work);
  const links = others.map(({ at }) => ({ context: trace.getSpanContext(at) ?? INVALID_SPAN_CONTEXT }));
  const options = { links, attributes: { 'millrace.items': batch.length } };
  return trace.getTracer('millrace').startActiveSpan(`commit ${name}`, options, first.at, (span) => work().finally(() => span.end()));
}

// Errors of a statement's data (duplicate key, too long, out of range) may be one item's own; a lost connection is everyone's.
const isOfItem = (error: unknown): boolean =>
  (error as { sqlState?: string }).sqlState !== undefined && !(error as { fatal?: boolean }).fatal;
