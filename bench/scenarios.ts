// The product's own figures, through its public API with policy, tokens and logs on.
import { Agent, request } from 'node:http';
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
  isolation: Isolation; // said in so many words: the default depends on the source
}
export type Isolation = 'FRESH' | 'REUSED';

export const NOTHING = 'def main():\n    return None\n';
export const FIBO = `
import time

def fibo(n):
    return n if n < 2 else fibo(n - 1) + fibo(n - 2)

def main(n: int):
    start = time.perf_counter()
    fibo(n)
    return (time.perf_counter() - start) * 1000
`;
const LINES = 'import time\ndef main(count: int):\n    for _ in range(count):\n        print(time.time())\n        time.sleep(0.05)\n';

// A process that has just started is not what is measured.
export async function warm(bench: Bench): Promise<void> {
  for (const isolation of ['FRESH', 'REUSED'] as const) await finishing({ ...bench, isolation }, bench.quick ? 50 : 300);
}

export const draft = (automationId: string, input: Record<string, unknown> = {}) => Execution.fromPartial({ automationId, input });

// Waits until none of an automation's executions is open. Asks seldom, so that what is measured is the work and not the asking.
export async function drain({ direct }: Bench, automationId: string): Promise<void> {
  const open = [State.SCHEDULED, State.QUEUED, State.RUNNING, State.RETRYING, State.CANCELLING];
  for (;;) {
    const request = { states: open, automationId, pageSize: 1, pageToken: '', createTimeFrom: undefined, createTimeTo: undefined };
    if ((await direct.listExecutions(request)).executions.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// Accepted for tomorrow: nothing but the acceptance.
export async function accepting({ api, direct, isolation }: Bench, count: number): Promise<number> {
  const automation = await publish(api, NOTHING, { isolation });
  const scheduleTime = new Date(Date.now() + 24 * 3_600_000);
  return rate(count, 64, () =>
    direct.createExecution({ execution: Execution.fromPartial({ automationId: automation, scheduleTime }), requestId: '' }),
  );
}

export async function finishing(bench: Bench, count: number): Promise<void> {
  const automation = await publish(bench.api, NOTHING, { isolation: bench.isolation });
  await rate(count, 64, () => bench.direct.createExecution({ execution: draft(automation), requestId: '' }));
  await drain(bench, automation);
}

// With little work for the client, which shares the processors with what is measured: fetch takes as long as the edge.
const post = ({ base, token }: Api, agent: Agent, path: string, body: object): Promise<void> =>
  new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const sent = request(base + path, { agent, method: 'POST', headers }, (answer) => {
      if (answer.statusCode !== 201) reject(new Error(`${path} answered ${answer.statusCode}`));
      answer.resume().once('error', reject).once('end', resolve);
    });
    sent.once('error', reject).end(JSON.stringify(body));
  });

// A burst: how many are accepted a second, and how many are done a second from the first acceptance to the last end.
export async function burst(bench: Bench): Promise<Figure[]> {
  const automation = await publish(bench.api, NOTHING, { isolation: bench.isolation });
  const count = bench.quick ? 300 : 2000;
  const begin = performance.now();
  const accepted = await rate(count, 64, () => bench.direct.createExecution({ execution: draft(automation), requestId: '' }));
  await drain(bench, automation);
  const completed = (count / (performance.now() - begin)) * 1000;
  const done = { name: `completed, durable, ${bench.isolation.toLowerCase()} sandbox`, unit: '/s', value: completed };
  if (bench.isolation === 'REUSED') return [{ ...done, note: 'wrong below 800' }];
  const agent = new Agent({ keepAlive: true, maxSockets: 32 });
  const overRest = await rate(bench.quick ? 300 : 2000, 32, () => post(bench.api, agent, '/v1/executions', { automationId: automation }));
  agent.destroy();
  await drain(bench, automation);
  return [
    { name: 'accepted, durable, gRPC', unit: '/s', value: accepted, note: 'wrong below 1,000' },
    { name: 'accepted, durable, REST through the edge', unit: '/s', value: overRest, note: 'wrong below 600' },
    { ...done, note: 'wrong below 120 at tier 2, 200 at tier 1' },
  ];
}

// One at a time, at most 20 a second. The result is taken as the peers' is, by one call that answers it; in turns with the call that answers once it
// is accepted, whose stages the record tells.
export async function paced(bench: Bench): Promise<Figure[]> {
  const automation = await publish(bench.api, NOTHING, { isolation: bench.isolation });
  const accepts: number[] = [];
  const starts: number[] = [];
  const finishes: number[] = [];
  const results: number[] = [];
  for (let n = 0; n < (bench.quick ? 40 : 400); n += 1) {
    const begin = performance.now();
    if (n % 2 === 0) {
      await bench.direct.runAndWait({ execution: draft(automation), wait: undefined, requestId: '' });
      results.push(performance.now() - begin);
    } else {
      const { id } = await bench.direct.createExecution({ execution: draft(automation), requestId: '' });
      accepts.push(performance.now() - begin);
      for await (const frame of bench.direct.watchExecution({ id })) if (frame.end) break;
      const done = await bench.direct.getExecution({ id });
      if (done.startTime && done.createTime && done.endTime) {
        starts.push(done.startTime.getTime() - done.createTime.getTime());
        finishes.push(done.endTime.getTime() - done.startTime.getTime());
      }
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 50 - (performance.now() - begin))));
  }
  const mode = bench.isolation.toLowerCase();
  const notes = bench.isolation === 'FRESH' ? ['wrong above 15', 'wrong above 40'] : ['wrong above 8'];
  return [
    ...latency(`accept, ${mode}`, accepts),
    ...latency(`accept to start, ${mode}`, starts),
    ...latency(`start to end, ${mode}`, finishes),
    ...latency(`submit to result at 20/s, ${mode}`, results).map((one, index) => ({ ...one, ...noted(notes[index]) })),
  ];
}

const noted = (note: string | undefined) => (note ? { note } : {});

export async function lines(bench: Bench): Promise<Figure[]> {
  const delays = await lineDelays(bench, bench.quick ? 40 : 200);
  return latency('line printed to line seen, gRPC through the edge', delays).map((one, index) => ({
    ...one,
    note: index === 0 ? 'wrong above 20' : 'wrong above 100',
  }));
}

// From print to the client's holding the line, in milliseconds.
export async function lineDelays({ api, edge, isolation }: Bench, count: number): Promise<number[]> {
  const automation = await publish(api, LINES, { isolation });
  const delays: number[] = [];
  const id = await start(api, automation, { count });
  for await (const frame of edge.tailExecutionLogs({ id, cursor: '', follow: true })) {
    if (frame.entry) delays.push(Date.now() - Number(frame.entry.text) * 1000);
    if (frame.end) break;
  }
  return delays;
}

// Steps one after another, each a durable sandboxed execution, and the overhead of a long one: what its own clock does not tell.
export async function steps(bench: Bench): Promise<Figure[]> {
  const automation = await publish(bench.api, FIBO, { isolation: bench.isolation });
  const once = async (n: number): Promise<number> => {
    const { output, state } = await bench.direct.runAndWait({ execution: draft(automation, { n }), wait: undefined, requestId: '' });
    if (state !== State.SUCCEEDED) throw new Error(`a step did not succeed: state ${state}`);
    return Number(output);
  };
  await once(10);
  const begin = performance.now();
  for (let step = 0; step < 40; step += 1) await once(10);
  const short = (performance.now() - begin) / 1000;
  const count = bench.quick ? 3 : 10;
  const long = performance.now();
  let inside = 0;
  for (let step = 0; step < count; step += 1) inside += await once(33);
  const overhead = (performance.now() - long - inside) / count;
  const mode = bench.isolation.toLowerCase();
  const isFresh = bench.isolation === 'FRESH';
  return [
    { name: `40 short steps in sequence, ${mode}`, unit: 's', value: short, ...noted(isFresh ? 'wrong above 0.5' : undefined) },
    { name: `overhead of a long task, ${mode}`, unit: 'ms', value: overhead, ...noted(isFresh ? 'wrong above 20' : undefined) },
  ];
}
