// `node bench/backpressure.ts`: the memory of each process while scripts flood their logs, readers of logs are slow, and the database stands still.
// What is too fast must be slowed down, not kept: memory levels off. Keeps bench/results/backpressure.txt.
import { readFileSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { createConnection } from 'mysql2/promise';
import { type Stack, startStack } from '../deploy/local/stack.ts';
import { type Api, call, publish, run, signUp } from '../tests/e2e/rest.ts';

const SECONDS = Number(process.env.SECONDS ?? 20); // of each hardship
const SCRIPTS = 8;
const READERS = 20;
const READ_EVERY_MS = 1000;
const CLIENTS = 16;
const FLOOD = `
def main(lines: int):
    for i in range(lines):
        print("x" * 200, i)
`;

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const rss = (pid: number | undefined): number => {
  try {
    return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  } catch {
    return 0; // it has ended
  }
};

interface Row {
  hardship: string;
  second: number;
  mib: number[]; // by part
}

async function flood(api: Api, automation: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const id = await run(api, automation, { lines: 40_000 }).catch(() => undefined);
    if (id)
      await api.get(`/v1/executions/${id}:watch`).catch(() => undefined); // ends with it
    else await sleep(200);
  }
}

// Takes a little now and then; the rest waits in the connection.
async function readSlowly(api: Api, automation: string, signal: AbortSignal): Promise<void> {
  const id = await run(api, automation, { lines: 40_000 });
  const headers = { authorization: `Bearer ${api.token}` };
  const answer = await fetch(`${api.base}/v1/executions/${id}/logs?follow=true`, { headers, signal });
  const reader = answer.body?.getReader();
  while (!signal.aborted) {
    await reader?.read();
    await sleep(READ_EVERY_MS);
  }
}

async function submit(api: Api, automation: string, signal: AbortSignal): Promise<void> {
  const headers = { authorization: `Bearer ${api.token}` };
  while (!signal.aborted) {
    const answer = await call(api.base, 'POST', '/v1/executions', { automationId: automation, input: { lines: 1 } }, headers).catch(
      () => undefined,
    );
    if (answer?.status !== 201) await sleep(50);
  }
}

async function measure(stack: Stack, hardship: string, rows: Row[], work: (signal: AbortSignal) => Promise<unknown>[]): Promise<void> {
  const over = new AbortController();
  const working = work(over.signal);
  for (let second = 0; second <= SECONDS; second += 1) {
    rows.push({ hardship, second, mib: stack.parts.map((part) => rss(stack.pid(part))) });
    await sleep(1000);
  }
  over.abort();
  await Promise.allSettled(working);
}

const stack = await startStack({ settings: { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_LOG_LEVEL: 'warn' } });
try {
  const api = await signUp(stack.urls.base);
  const automation = await publish(api, FLOOD);
  const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);
  const rows: Row[] = [];
  await measure(stack, 'flooding scripts', rows, (signal) => times(SCRIPTS, () => flood(api, automation, signal)));
  await measure(stack, 'slow readers', rows, (signal) => times(READERS, () => readSlowly(api, automation, signal)));
  const connection = await createConnection(stack.wiring.databaseUrl);
  await measure(stack, 'database stands', rows, (signal) => {
    const pausing = sleep(2000).then(() => connection.query('FLUSH TABLES WITH READ LOCK'));
    signal.addEventListener('abort', () => void connection.query('UNLOCK TABLES'));
    return [pausing, ...times(SCRIPTS, () => flood(api, automation, signal)), ...times(CLIENTS, () => submit(api, automation, signal))];
  });
  await connection.end();
  const width = (text: string) => text.padStart(13);
  const lines = [
    `Memory (RSS) of the main process of each part in MiB, while ${SCRIPTS} scripts flood their logs, ${READERS} readers take a piece every ${READ_EVERY_MS / 1000} s,`,
    `and the database commits nothing while ${SCRIPTS} scripts flood and ${CLIENTS} clients submit. Load ${loadavg()[0]?.toFixed(1)}.`,
    '',
    ['hardship        ', 'second', ...stack.parts].map((text, index) => (index === 0 ? text : width(text))).join(''),
    ...rows
      .filter(({ second }) => second % 4 === 0)
      .map(({ hardship, second, mib }) =>
        [hardship.padEnd(16), ...[second, ...mib.map((one) => one.toFixed(0))].map((one) => width(String(one)))].join(''),
      ),
    ['most            ', width(''), ...stack.parts.map((_, at) => width(Math.max(...rows.map(({ mib }) => mib[at] ?? 0)).toFixed(0)))].join(
      '',
    ),
  ].join('\n');
  console.log(lines);
  writeFileSync(join(import.meta.dirname, 'results/backpressure.txt'), `${lines}\n`);
} finally {
  await stack.stop();
}
