// BullMQ: queue, results and the worker in Node; its client is this process.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { rate } from '../figures.ts';
import type { Contender, Driver } from './contender.ts';
import { bullmq, redis } from './install.ts';
import { start, startRedis, stopAll } from './servers.ts';

const IN_FLIGHT = 64;
const WAIT_MS = 120_000;
const LOOK_EVERY_MS = 10;

interface Step {
  name: string;
  queueName: string;
  data: { n: number };
  children: Step[];
}

export const bullmqIn = (fsync: boolean): Contender => ({
  name: fsync ? 'BullMQ, fsync' : 'BullMQ, default',
  durability: fsync
    ? 'on disk (Redis AOF, fsync always) before the answer; run again when its worker dies'
    : 'in memory of Redis, a snapshot now and then; run again when its worker dies',
  isolation: 'none: all tasks in one Node process, and written in JavaScript',
  burst: 4000,
  async install() {
    await bullmq();
    await redis();
  },
  open: () => open(fsync),
});

async function open(fsync: boolean): Promise<Driver> {
  const modules = join(await bullmq(), 'package.json');
  const server = await startRedis(fsync);
  const program = {
    command: process.execPath,
    args: [join(import.meta.dirname, 'bullmq-worker.ts'), modules, String(server.port)],
    env: {},
  };
  const worker = await start({ name: 'bullmq-worker', ...program });
  const close = () => stopAll([server, worker]);
  try {
    const client = await connected(modules, server.port);
    return { ...client, close: () => client.disconnect().then(close) };
  } catch (error) {
    await close();
    throw error;
  }
}

async function connected(modules: string, port: number): Promise<Omit<Driver, 'close'> & { disconnect(): Promise<void> }> {
  const { Queue, QueueEvents, FlowProducer } = createRequire(modules)('bullmq');
  const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
  const queue = new Queue('peer', { connection });
  const events = new QueueEvents('peer', { connection });
  const flows = new FlowProducer({ connection });
  await events.waitUntilReady();
  return {
    async burst(count) {
      const before = await queue.getCompletedCount();
      const begin = performance.now();
      const accepted = await rate(count, IN_FLIGHT, () => queue.add('noop', {}));
      while ((await queue.getCompletedCount()) < before + count) await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
      return { accepted, completed: (count / (performance.now() - begin)) * 1000 };
    },
    async once() {
      const begin = performance.now();
      await (await queue.add('noop', {})).waitUntilFinished(events, WAIT_MS);
      return performance.now() - begin;
    },
    async sequence(count, n) {
      // A parent waits for its children: the deepest runs first.
      let tree: Step | undefined;
      for (let step = 0; step < count; step += 1) tree = { name: 'fibo', queueName: 'peer', data: { n }, children: tree ? [tree] : [] };
      const begin = performance.now();
      await (await flows.add(tree)).job.waitUntilFinished(events, WAIT_MS);
      const seconds = (performance.now() - begin) / 1000;
      const done: { name: string; returnvalue: number }[] = await queue.getJobs(['completed'], 0, count - 1);
      return { seconds, inside: done.filter(({ name }) => name === 'fibo').map(({ returnvalue }) => returnvalue) };
    },
    disconnect: async () => void (await Promise.allSettled([queue.close(), events.close(), flows.close()])),
  };
}
