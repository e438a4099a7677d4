// The product's own figures, through its public API with policy, tokens and logs on.
import { execFileSync } from 'node:child_process';
import { Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import type { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import type { ClientOf } from '#platform/client.ts';
import { type Api, publish, run as start } from '../tests/e2e/rest.ts';
import { type Figure, latency, rate } from './figures.ts';

export interface Bench {
  api: Api; // REST through the edge
  direct: ClientOf<typeof ExecutionServiceService>; // gRPC without the edge
  edge: ClientOf<typeof ExecutionServiceService>; // gRPC through the edge
  quick: boolean;
}

const NOTHING = 'def main():\n    return None\n';
const FIBO = 'def fibo(n):\n    return n if n < 2 else fibo(n - 1) + fibo(n - 2)\n\ndef main(n: int):\n    return fibo(n)\n';
const LINES = 'import time\ndef main(count: int):\n    for _ in range(count):\n        print(time.time())\n        time.sleep(0.05)\n';

const draft = (automationId: string, input: Record<string, unknown> = {}) => Execution.fromPartial({ automationId, input });

// Waits until none of an automation's executions is open. Asks seldom, so that what is measured is the work and not the asking.
async function drain({ direct }: Bench, automationId: string): Promise<void> {
  const open = [State.SCHEDULED, State.QUEUED, State.RUNNING, State.RETRYING, State.CANCELLING];
  for (;;) {
    const request = { states: open, automationId, pageSize: 1, pageToken: '', createTimeFrom: undefined, createTimeTo: undefined };
    if ((await direct.listExecutions(request)).executions.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// Accepted for tomorrow: nothing but the acceptance.
export async function accepting({ api, direct }: Bench, count: number): Promise<number> {
  const automation = await publish(api, NOTHING);
  const scheduleTime = new Date(Date.now() + 24 * 3_600_000);
  return rate(count, 64, () =>
    direct.createExecution({ execution: Execution.fromPartial({ automationId: automation, scheduleTime }), requestId: '' }),
  );
}

export async function finishing(bench: Bench, count: number): Promise<void> {
  const automation = await publish(bench.api, NOTHING);
  await rate(count, 64, () => bench.direct.createExecution({ execution: draft(automation), requestId: '' }));
  await drain(bench, automation);
}

// A burst: how many are accepted a second, and how many are done a second from the first acceptance to the last end.
export async function burst(bench: Bench): Promise<Figure[]> {
  const automation = await publish(bench.api, NOTHING);
  const count = bench.quick ? 300 : 2000;
  const begin = performance.now();
  const accepted = await rate(count, 64, () => bench.direct.createExecution({ execution: draft(automation), requestId: '' }));
  await drain(bench, automation);
  const completed = (count / (performance.now() - begin)) * 1000;
  const overRest = await rate(bench.quick ? 300 : 1000, 32, () => start(bench.api, automation));
  await drain(bench, automation);
  return [
    { name: 'accepted, durable, gRPC', unit: '/s', value: accepted, note: 'wrong below 1,000' },
    { name: 'accepted, durable, REST through the edge', unit: '/s', value: overRest, note: 'wrong below 600' },
    { name: 'completed, durable, fresh sandbox', unit: '/s', value: completed, note: 'wrong below 120 at tier 2, 200 at tier 1' },
  ];
}

// One at a time, at most 20 a second.
export async function paced(bench: Bench): Promise<Figure[]> {
  const automation = await publish(bench.api, NOTHING);
  const accepts: number[] = [];
  const starts: number[] = [];
  const finishes: number[] = [];
  const results: number[] = [];
  for (let n = 0; n < (bench.quick ? 40 : 300); n += 1) {
    const begin = performance.now();
    const { id } = await bench.direct.createExecution({ execution: draft(automation), requestId: '' });
    accepts.push(performance.now() - begin);
    for await (const frame of bench.direct.watchExecution({ id })) if (frame.end) break;
    results.push(performance.now() - begin);
    const done = await bench.direct.getExecution({ id });
    if (done.startTime && done.createTime && done.endTime) {
      starts.push(done.startTime.getTime() - done.createTime.getTime());
      finishes.push(done.endTime.getTime() - done.startTime.getTime());
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 50 - (performance.now() - begin))));
  }
  return [
    ...latency('accept', accepts),
    ...latency('accept to start', starts),
    ...latency('start to end', finishes),
    ...latency('submit to result at 20/s, fresh', results).map((one, index) => ({
      ...one,
      note: index === 0 ? 'wrong above 15' : 'wrong above 40',
    })),
  ];
}

export async function lines(bench: Bench): Promise<Figure[]> {
  const automation = await publish(bench.api, LINES);
  const delays: number[] = [];
  const id = await start(bench.api, automation, { count: bench.quick ? 40 : 200 });
  for await (const frame of bench.edge.tailExecutionLogs({ id, cursor: '', follow: true })) {
    if (frame.entry) delays.push(Date.now() - Number(frame.entry.text) * 1000);
    if (frame.end) break;
  }
  return latency('line printed to line seen, gRPC through the edge', delays).map((one, index) => ({
    ...one,
    note: index === 0 ? 'wrong above 20' : 'wrong above 100',
  }));
}

// Steps one after another, each a durable sandboxed execution; and the overhead of a long one.
export async function steps(bench: Bench, python: string): Promise<Figure[]> {
  const automation = await publish(bench.api, FIBO);
  const once = (n: number) => bench.direct.runAndWait({ execution: draft(automation, { n }), wait: undefined, requestId: '' });
  await once(10);
  const begin = performance.now();
  for (let step = 0; step < 40; step += 1) await once(10);
  const short = (performance.now() - begin) / 1000;
  const count = bench.quick ? 3 : 10;
  const long = performance.now();
  for (let step = 0; step < count; step += 1) await once(33);
  const total = performance.now() - long;
  const alone = Number(
    execFileSync(python, [
      '-I',
      '-S',
      '-c',
      `import time\n${FIBO}\nmain(33)\ns = time.perf_counter()\nfor _ in range(${count}): main(33)\nprint((time.perf_counter() - s) * 1000)`,
    ]),
  );
  return [
    { name: '40 short steps in sequence', unit: 's', value: short, note: 'wrong above 0.5' },
    {
      name: 'overhead of a long task',
      unit: 'ms',
      value: (total - alone) / count,
      note: 'wrong above 20; the bare script took its time in another process',
    },
  ];
}
