// `make bench`: starts a stack of its own, measures it with the machine's limits beside, prints a table and keeps it in bench/results.
// QUICK=1 takes less of everything; REPEAT=3 repeats and keeps the median of each figure.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { openDialer } from '#platform/client.ts';
import { loadContract } from '#platform/contract.ts';
import { pause } from '#platform/pause.ts';
import { type Stack, startStack } from '../deploy/local/stack.ts';
import { signUp } from '../tests/e2e/rest.ts';
import { type Figure, median, table } from './figures.ts';
import { limits } from './limits.ts';
import { type Bench, burst, lines, paced, steps, warm } from './scenarios.ts';

const quick = process.env.QUICK === '1';
const repeat = Number(process.env.REPEAT ?? 1);
const REST_MS = 30_000; // what a burst left in the heaps is gone by then

const memory = (stack: Stack): Figure => {
  const kib = stack.parts.reduce(
    (sum, part) => sum + Number(/Pss:\s+(\d+)/.exec(readFileSync(`/proc/${stack.pid(part)}/smaps_rollup`, 'utf8'))?.[1] ?? 0),
    0,
  );
  return { name: 'memory of the idle stack (its main processes)', unit: 'MiB', value: kib / 1024, note: 'wrong above 900' };
};

async function measure(stack: Stack): Promise<Figure[]> {
  const idle = memory(stack);
  const api = await signUp(stack.urls.base);
  const dialer = openDialer({ contract: loadContract('build/image.binpb'), sign: async () => api.token });
  const bench: Bench = {
    api,
    quick,
    direct: dialer.client(ExecutionServiceService, stack.urls.services),
    edge: dialer.client(ExecutionServiceService, stack.urls.host),
    isolation: 'FRESH',
  };
  const figures: Figure[] = [];
  await warm(bench);
  const fresh = { burst, paced, lines, steps };
  for (const [isolation, scenarios] of [
    ['FRESH', fresh],
    ['REUSED', { burst, paced, steps }],
  ] as const) {
    for (const [what, run] of Object.entries(scenarios)) {
      console.error(`measuring ${what}, ${isolation.toLowerCase()} (load ${loadavg()[0]?.toFixed(1)})`);
      figures.push(...(await run({ ...bench, isolation })));
    }
  }
  dialer.close();
  return [...figures, idle];
}

const stack = await startStack({ settings: { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_LOG_LEVEL: 'warn' } });
try {
  const { sandbox = 'unknown' } = (await (await fetch(`${stack.urls.admin.automation}/readyz`)).json()) as { sandbox?: unknown };
  const machine = `${cpus().length} x ${cpus()[0]?.model}, kernel ${release()}, sandbox ${JSON.stringify(sandbox)}`;
  const rounds: Figure[][] = [];
  for (let round = 0; round < repeat; round += 1) {
    if (round > 0) {
      console.error(`${REST_MS / 1000} s of rest, so that the stack is idle`);
      await pause(REST_MS);
    }
    rounds.push(await measure(stack));
  }
  const product = (rounds[0] ?? []).map((figure) => ({
    ...figure,
    value: median(rounds.map((all) => all.find((one) => one.name === figure.name)?.value ?? Number.NaN)),
  }));
  const beside = await limits(
    stack.env.MILLRACE_DATABASE_URL ?? '',
    stack.env.MILLRACE_NATS_URL ?? '',
    stack.wiring.choices.python,
    stack.urls.services,
  );
  const text = `Millrace, median of ${repeat} round(s)\n${table(product)}\n\nThe machine by itself: ${machine}\n${table(beside)}\n`;
  console.log(text);
  mkdirSync('bench/results', { recursive: true });
  writeFileSync(`bench/results/${quick ? 'quick' : 'millrace'}.txt`, text);
} finally {
  await stack.stop();
}
