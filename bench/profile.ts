// `make profile`: where the processor time of one execution goes, by process. Steadier than the clock on a busy machine.
import { readdirSync, readFileSync } from 'node:fs';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { openDialer } from '#platform/client.ts';
import { loadContract } from '#platform/contract.ts';
import { type Stack, startStack } from '../deploy/local/stack.ts';
import { signUp } from '../tests/e2e/rest.ts';
import { accepting, type Bench, finishing } from './scenarios.ts';

const TICKS = 100; // a second
const COUNT = Number(process.env.COUNT ?? 400);

// Processor time of a process and of its children, those that have ended included, in milliseconds.
function cpuOf(pid: number, all: ReadonlyMap<number, number[]>): number {
  const own = (() => {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      return [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
    } catch {
      return 0;
    }
  })();
  return (own * 1000) / TICKS + (all.get(pid) ?? []).reduce((sum, child) => sum + cpuOf(child, all), 0);
}

function children(): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one))) {
    try {
      const parent = Number(readFileSync(`/proc/${name}/stat`, 'utf8').split(') ')[1]?.split(' ')[1]);
      found.set(parent, [...(found.get(parent) ?? []), Number(name)]);
    } catch {
      // it has ended meanwhile
    }
  }
  return found;
}

const snapshot = (stack: Stack): Map<string, number> => {
  const all = children();
  return new Map([
    ...stack.parts.map((part): [string, number] => [part, cpuOf(stack.pid(part) ?? 0, all)]),
    ['this client', cpuOf(process.pid, new Map())],
  ]);
};

const stack = await startStack({ settings: { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_LOG_LEVEL: 'warn' } });
try {
  const api = await signUp(stack.urls.base);
  const dialer = openDialer({ contract: loadContract('build/image.binpb'), sign: async () => api.token });
  const bench: Bench = {
    api,
    quick: true,
    direct: dialer.client(ExecutionServiceService, stack.urls.services),
    edge: dialer.client(ExecutionServiceService, stack.urls.host),
    isolation: process.env.ISOLATION === 'REUSED' ? 'REUSED' : 'FRESH',
  };
  for (const [name, work] of Object.entries({ 'accepting alone': accepting, 'accepting and finishing': finishing })) {
    await work(bench, 50);
    const before = snapshot(stack);
    const start = performance.now();
    await work(bench, COUNT);
    const seconds = (performance.now() - start) / 1000;
    const after = snapshot(stack);
    console.log(`\n${name}: ${COUNT} in ${seconds.toFixed(1)} s, processor milliseconds for each`);
    for (const [part, ms] of after) console.log(`  ${part.padEnd(12)} ${((ms - (before.get(part) ?? 0)) / COUNT).toFixed(2).padStart(7)}`);
  }
  dialer.close();
} finally {
  await stack.stop();
}
