// The product as a contender: a stack of its own, through the public API with policy, tokens and logs on.
import { Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { openDialer } from '#platform/client.ts';
import { loadContract } from '#platform/contract.ts';
import { startStack } from '../../deploy/local/stack.ts';
import { publish, signUp } from '../../tests/e2e/rest.ts';
import { rate } from '../figures.ts';
import { type Bench, draft, drain, FIBO, type Isolation, lineDelays, NOTHING } from '../scenarios.ts';
import type { Contender, Driver } from './contender.ts';

const IN_FLIGHT = 64;

export const millrace = (isolation: Isolation): Contender => ({
  name: `Millrace, ${isolation.toLowerCase()} sandbox`,
  durability: 'on disk (fsync) before the answer, results too; goes on after the death of any process',
  isolation:
    isolation === 'FRESH'
      ? 'a new sandboxed process for each task'
      : 'a sandboxed process for each automation and user, one task at a time',
  burst: isolation === 'FRESH' ? 1000 : 4000,
  install: async () => undefined,
  open: () => open(isolation),
});

async function open(isolation: Isolation): Promise<Driver> {
  const stack = await startStack({ settings: { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_LOG_LEVEL: 'warn' } });
  const dialer = openDialer({ contract: loadContract('build/image.binpb'), sign: async () => api.token });
  const api = await signUp(stack.urls.base);
  const bench: Bench = {
    api,
    direct: dialer.client(ExecutionServiceService, stack.urls.services),
    edge: dialer.client(ExecutionServiceService, stack.urls.host),
    quick: false,
    isolation,
  };
  const noop = await publish(api, NOTHING, { isolation });
  const fibo = await publish(api, FIBO, { isolation });
  const run = async (automation: string, input: Record<string, unknown> = {}): Promise<unknown> => {
    const { state, output } = await bench.direct.runAndWait({ execution: draft(automation, input), wait: undefined, requestId: '' });
    if (state !== State.SUCCEEDED) throw new Error(`an execution did not succeed: state ${state}`);
    return output;
  };
  return {
    async burst(count) {
      const begin = performance.now();
      const accepted = await rate(count, IN_FLIGHT, () => bench.direct.createExecution({ execution: draft(noop), requestId: '' }));
      await drain(bench, noop);
      return { accepted, completed: (count / (performance.now() - begin)) * 1000 };
    },
    async once() {
      const begin = performance.now();
      await run(noop);
      return performance.now() - begin;
    },
    async sequence(count, n) {
      const inside: number[] = [];
      const begin = performance.now();
      for (let step = 0; step < count; step += 1) inside.push(Number(await run(fibo, { n })) / 1000);
      return { seconds: (performance.now() - begin) / 1000, inside };
    },
    lines: (count) => lineDelays(bench, count),
    async close() {
      dialer.close();
      await stack.stop();
    },
  };
}
