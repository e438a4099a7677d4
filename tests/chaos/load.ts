// A load of executions whose acceptance is retried as a careful client does, and the check of what became of them.
import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { wholeLog } from '../e2e/journey.ts';
import type { Api, Json } from '../e2e/rest.ts';
import { check, type Happening } from './checker.ts';

export interface History {
  push(one: Happening): unknown;
}

export const WORK = `
import time
def main(n: int) -> int:
    print("started", n)
    for i in range(4):
        time.sleep(0.1)
        print("line", i)
    return n
`;

const LOST = 'LOST'; // no state of an execution
const FINAL = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED'];

// Repeats a call until it is answered for good: refusals that say "try again" and lost connections are tried again, with the same key.
export async function patiently(what: string, send: () => Promise<{ status: number; body: Json }>, patienceMs = 120_000): Promise<Json> {
  const end = performance.now() + patienceMs;
  for (;;) {
    const answer = await send().catch((error: Error) => ({ status: 0, body: error.message }));
    if (answer.status >= 200 && answer.status < 300) return answer.body;
    const again =
      answer.status === 0 || answer.status === 429 || answer.status >= 500 || JSON.stringify(answer.body).includes('REVOCATION_UNKNOWN');
    if (!again || performance.now() > end) throw new Error(`${what}: ${answer.status} ${JSON.stringify(answer.body)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function accept(api: Api, automationId: string, count: number, history: History, first = 0): Promise<string[]> {
  const ids: string[] = [];
  const numbers = Array.from({ length: count }, (_, index) => first + index);
  const worker = async () => {
    for (let n = numbers.shift(); n !== undefined; n = numbers.shift()) {
      const key = randomUUID();
      const body = { automationId, input: { n } };
      const create = () => patiently('create', () => api.post('/v1/executions', body, { 'idempotency-key': key }));
      const [{ id }, ...again] = await Promise.all(n % 10 === 0 ? [create(), create()] : [create()]); // some clients are impatient as well
      for (const other of again) expect(other.id).to.equal(id);
      ids.push(id);
      history.push({ what: 'accepted', key, body: JSON.stringify(body), id });
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return ids;
}

// One that is not there any more is for the checker to report.
async function found(api: Api, id: string): Promise<{ status: number; body: Json }> {
  const answer = await api.get(`/v1/executions/${id}`);
  return answer.status === 404 ? { status: 200, body: { id, state: LOST } } : answer;
}

export async function drained(api: Api, ids: readonly string[], history: History, patienceMs = 180_000): Promise<Json[]> {
  const end = performance.now() + patienceMs;
  const done = new Map<string, Json>();
  while (done.size < ids.length) {
    for (const id of ids.filter((one) => !done.has(one))) {
      const execution = await patiently('get', () => found(api, id));
      const { state, version, output } = execution;
      if (state !== LOST)
        history.push({ what: 'seen', id, state, version, ...(output === undefined ? {} : { output: JSON.stringify(output) }) });
      if (FINAL.includes(state) || state === LOST) done.set(id, execution);
      else if (performance.now() > end)
        throw new Error(`${ids.length - done.size} executions have not ended, such as ${JSON.stringify(execution)}`);
      else break;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return ids.map((id) => done.get(id));
}

// All executions of an automation: a request that was repeated may have made one more than was answered.
export async function executionsOf(api: Api, automationId: string): Promise<string[]> {
  const ids: string[] = [];
  for (let token = ''; ; ) {
    const query = new URLSearchParams({ automationId, pageSize: '200', pageToken: token });
    const { executions, nextPageToken } = await patiently('list', () => api.get(`/v1/executions?${query}`));
    ids.push(...executions.map((one: Json) => one.id));
    if (!nextPageToken) return ids;
    token = nextPageToken;
  }
}

export interface Verdict {
  executions: number;
  lost: number; // attempts whose server was lost
  beyond: number; // script starts beyond one
}

// Everything ended well; starts beyond one are exactly the lost attempts; and the checker has nothing to say.
export async function judge(stack: Stack, api: Api, executions: readonly Json[], history: Happening[], logs = 25): Promise<Verdict> {
  const verdict = { executions: executions.length, lost: 0, beyond: 0 };
  for (const execution of executions) {
    expect([execution.state, execution.output], JSON.stringify(execution)).to.deep.equal(['SUCCEEDED', execution.input.n]);
    if (execution.attemptCount === 1) continue;
    const { attempts } = await patiently('attempts', () => api.get(`/v1/executions/${execution.id}/attempts`));
    verdict.lost += attempts.filter((one: Json) => one.state === 'LOST').length;
    verdict.beyond += execution.attemptCount - 1;
  }
  expect(verdict.beyond).to.equal(verdict.lost);
  for (const { id } of executions.filter((_, index) => index % Math.ceil(executions.length / logs) === 0)) {
    const { entries, ends } = await wholeLog(api, id);
    history.push({ what: 'log', id, entries: entries as never, ends: ends as never, isWhole: true });
    expect(entries.filter(({ attempt }) => attempt === ends.at(-1)?.attempt)).to.have.length(5);
  }
  const { databaseUrl, databasePrefix } = stack.wiring;
  const found = await check(history, { databaseUrl, databasePrefix, databaseConnections: 1 }, `${databasePrefix}_executions`);
  expect(found).to.deep.equal({ violations: [], unfinished: [] });
  return verdict;
}
