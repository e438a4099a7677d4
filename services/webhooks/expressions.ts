// expressions.ts: CEL expressions of users, evaluated beside the event loop: one that takes too long or too much memory is ended with its
// thread and harms nobody else for longer than that.
import { Worker } from 'node:worker_threads';
import { unavailable } from '#platform/errors.ts';
import type { Job, Outcome } from './expression-worker.ts';

export interface Expressions {
  faultOf(expression: string): Promise<string | undefined>; // why it cannot be evaluated at all
  evaluate(expression: string, variables: Record<string, unknown>): Promise<Evaluated>; // throws UNAVAILABLE when too many wait
  stop(): Promise<void>;
}
export type Evaluated = { value: unknown } | { error: string };
interface Options {
  threads?: number;
  patienceMs?: number;
  maxWaiting?: number;
  memoryMb?: number;
}
type Asked = Pick<Job, 'expression' | 'variables'> & { answer: (outcome: Evaluated) => void };
interface Thread {
  worker: Worker;
  isReady: boolean;
  job: Asked | undefined;
  timer: NodeJS.Timeout | undefined;
}

const THREADS = 2;
const PATIENCE_MS = 250;
const MAX_WAITING = 500;
const MAX_WAITING_OF_ONE = 100; // of one expression: who sends it much waits for itself
const MEMORY_MB = 96;
const SOURCE = new URL('./expression-worker.ts', import.meta.url);

export function openExpressions({
  threads = THREADS,
  patienceMs = PATIENCE_MS,
  maxWaiting = MAX_WAITING,
  memoryMb = MEMORY_MB,
}: Options = {}): Expressions {
  const resourceLimits = { maxOldGenerationSizeMb: memoryMb, maxYoungGenerationSizeMb: 16, stackSizeMb: 2 };
  const open = new Set<Thread>();
  const waiting = new Map<string, Asked[]>(); // by expression, the next one first
  let waitingCount = 0;
  let isStopped = false;

  function begin(): void {
    const worker = new Worker(SOURCE, { resourceLimits, env: {}, execArgv: [] });
    const thread: Thread = { worker, isReady: false, job: undefined, timer: undefined };
    open.add(thread);
    worker.unref();
    worker.on('message', (outcome: Outcome | 'ready') => {
      if (outcome === 'ready') thread.isReady = true;
      else settle(thread, 'error' in outcome ? { error: outcome.error } : { value: outcome.value });
      next();
    });
    worker.on('error', () => end(thread, 'it takes too much memory'));
    worker.on('exit', () => end(thread, 'it cannot be evaluated'));
  }

  function settle(thread: Thread, outcome: Evaluated): void {
    clearTimeout(thread.timer);
    const { job } = thread;
    thread.job = undefined;
    job?.answer(outcome);
  }

  function end(thread: Thread, error: string): void {
    if (!open.delete(thread)) return;
    settle(thread, { error });
    void thread.worker.terminate();
    next();
  }

  // One of each expression in turn, so that a slow one delays others by no more than its own time.
  function take(): Asked | undefined {
    for (const [expression, line] of waiting) {
      const job = line.shift();
      waiting.delete(expression);
      if (line.length > 0) waiting.set(expression, line);
      waitingCount -= 1;
      return job;
    }
    return undefined;
  }

  function next(): void {
    if (isStopped) return;
    for (const thread of open) {
      if (!thread.isReady || thread.job) continue;
      const job = take();
      if (!job) return;
      thread.job = job;
      thread.timer = setTimeout(() => end(thread, `it takes longer than ${patienceMs} ms`), patienceMs);
      thread.worker.postMessage({ id: 0, expression: job.expression, variables: job.variables } satisfies Job);
    }
    const starting = [...open].filter(({ isReady }) => !isReady).length;
    if (waitingCount > starting && open.size < threads) begin();
  }

  const ask = (expression: string, variables: Record<string, unknown> | undefined): Promise<Evaluated> => {
    const line = waiting.get(expression) ?? [];
    if (waitingCount >= maxWaiting || line.length >= MAX_WAITING_OF_ONE) throw unavailable('too many expressions wait to be evaluated');
    return new Promise((answer) => {
      line.push({ expression, variables, answer });
      waiting.set(expression, line);
      waitingCount += 1;
      next();
    });
  };

  return {
    async faultOf(expression) {
      const outcome = await ask(expression, undefined);
      return 'error' in outcome ? outcome.error : undefined;
    },
    evaluate: async (expression, variables) => ask(expression, variables),
    async stop() {
      isStopped = true;
      for (const { answer } of [...waiting.values()].flat()) answer({ error: 'the server stops' });
      await Promise.all([...open].map(({ worker }) => worker.terminate()));
    },
  };
}
