// BullMQ's worker: `bullmq-worker.ts <package.json beside which BullMQ is installed> <port of Redis>`.
import { createRequire } from 'node:module';

const [, , modules = '', port] = process.argv;
const { Worker } = createRequire(modules)('bullmq');
const CONCURRENCY = 16;

const fibo = (n: number): number => (n < 2 ? n : fibo(n - 1) + fibo(n - 2));

// How long it took, in seconds; a no-op returns nothing.
async function work({ name, data }: { name: string; data: { n: number } }): Promise<number | null> {
  if (name !== 'fibo') return null;
  const begin = performance.now();
  fibo(data.n);
  return (performance.now() - begin) / 1000;
}

const worker = new Worker('peer', work, {
  connection: { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null },
  concurrency: CONCURRENCY,
});
// Without a listener it goes on trying, and says so thousands of times a second.
worker.on('error', (error: Error) => {
  console.error(error);
  process.exit(1);
});
