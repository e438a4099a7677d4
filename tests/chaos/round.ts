// One round of chaos: clients that are careful about their keys accept executions of several kinds while a plan is carried out, and then
// everything must end, and the checker judges.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { wholeLog } from '../e2e/journey.ts';
import { type Api, type Json, publish, signUp } from '../e2e/rest.ts';
import { until } from '../world.ts';
import { check, type Violation } from './checker.ts';
import { drained, executionsOf, patiently } from './load.ts';
import type { RecordFile, Verdict } from './record.ts';
import { watchMetrics } from './refused.ts';
import type { Rig } from './rig.ts';

const WORK = `
import time
def main(n: int) -> int:
    for i in range(5):
        print("line", n, i)
        time.sleep(0.1)
    return n
`;
const KINDS: Record<string, { spec?: object; input?: object; ends: readonly string[] }> = {
  plain: { ends: ['SUCCEEDED'] },
  limited: { spec: { concurrency: { max: 4, policy: 'QUEUE' } }, ends: ['SUCCEEDED'] },
  cancelled: { ends: ['SUCCEEDED', 'CANCELLED'] },
};
const SHARES = ['plain', 'plain', 'plain', 'plain', 'plain', 'plain', 'limited', 'cancelled'];
const CLIENTS = 8;
const PER_SECOND = 12;
const PATIENCE_MS = 180_000;
const LOGS = 40;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Options {
  rig: Rig;
  record: RecordFile;
  round: number;
  kills: number;
  wipes: number;
  faults: number;
  executions: number; // at least; more when what is done to the rig takes longer
  harm: () => Promise<void>; // what is done to it meanwhile
}

export async function runRound({ rig, record, round, kills, wipes, faults, executions, harm }: Options): Promise<Verdict> {
  const began = performance.now();
  const before = repairsIn(rig);
  const metrics = watchMetrics(rig.stack);
  const api = await persistently(() => signUp(rig.stack.urls.base));
  const automations: Record<string, string> = {};
  for (const [kind, { spec }] of Object.entries(KINDS)) automations[kind] = await persistently(() => publish(api, WORK, { ...spec }));
  const accepted = new Map<string, string>(); // kind by id
  let isOver = false;
  let last = performance.now();
  let longestSilenceMs = 0;

  async function accept(n: number): Promise<void> {
    const kind = SHARES[n % SHARES.length] ?? 'plain';
    const key = randomUUID();
    const body = { automationId: automations[kind], input: { n } };
    const create = async () => {
      const { id } = await patiently('create', () => api.post('/v1/executions', body, { 'idempotency-key': key }), PATIENCE_MS);
      longestSilenceMs = Math.max(longestSilenceMs, performance.now() - last);
      last = performance.now();
      record.push({ what: 'accepted', key, body: JSON.stringify(body), id });
      accepted.set(id, kind);
      return id;
    };
    const [id = ''] = await Promise.all(n % 10 === 0 ? [create(), create()] : [create()]); // some clients are impatient as well
    if (kind === 'cancelled') await patiently('cancel', () => cancel(api, id), PATIENCE_MS);
  }
  let n = 0;
  const client = async () => {
    while (!isOver || n < executions) {
      n += 1;
      await accept(n);
      await sleep((CLIENTS * 1000) / PER_SECOND);
    }
  };
  const load = Promise.all(Array.from({ length: CLIENTS }, client));
  const harmed = harm().finally(() => {
    isOver = true;
  });
  await Promise.all([harmed, load]);

  const ids = [...accepted.keys()];
  const done = await drained(api, ids, record, PATIENCE_MS);
  const odd = done.filter((one) => !endsWell(one, KINDS[accepted.get(one.id) ?? '']?.ends ?? []));
  let extra = 0;
  for (const automation of Object.values(automations))
    extra += (await executionsOf(api, automation)).filter((id) => !accepted.has(id)).length;
  const verdict = await lostAttempts(api, done);
  for (const { id } of done.filter((one, index) => one.attemptCount > 0 && index % Math.ceil(ids.length / LOGS) === 0)) {
    const { entries, ends } = await wholeLog(api, id);
    record.push({ what: 'log', id, entries: entries as never, ends: ends as never, isWhole: true });
  }
  const { databaseUrl, databasePrefix } = rig.stack.wiring;
  const found = await check(record.happenings, { databaseUrl, databasePrefix, databaseConnections: 1 }, `${databasePrefix}_executions`);
  const breaches = found.violations;
  const count = (...promises: Violation['promise'][]) => breaches.filter(({ promise }) => promises.includes(promise)).length;
  const ended: Record<string, number> = {};
  for (const { state } of done) ended[state] = (ended[state] ?? 0) + 1;
  return {
    round,
    kills,
    wipes,
    faults,
    executions: ids.length,
    ended,
    lost: count('I1', 'I7') + found.unfinished.length,
    doubled: count('I2', 'I3', 'I5', 'I6') + extra + Math.abs(verdict.beyond - verdict.lost),
    gaps: count('I4'),
    breaches: [
      ...breaches.map(({ promise, id, why }) => `${promise} ${id}: ${why}`),
      ...found.unfinished.map((id) => `I1 ${id}: it has not ended`),
      ...(extra > 0 ? [`I5: ${extra} executions that nobody was told of`] : []),
      ...(verdict.beyond !== verdict.lost ? [`I3: ${verdict.beyond} starts beyond one, ${verdict.lost} attempts lost`] : []),
      ...odd.map((one) => `${one.id}: it ended as ${one.state} with ${JSON.stringify(one.output)} ${JSON.stringify(one.error)}`),
    ],
    attemptsLost: verdict.lost,
    fenced: await metrics.stop(),
    repairs: repairsIn(rig) - before,
    longestSilenceMs,
    seconds: (performance.now() - began) / 1000,
  };
}

// What a round begins with, on a machine that may be busy.
const persistently = <T extends object | string>(make: () => Promise<T>) =>
  until('the stack to serve', () => make().catch(() => undefined), PATIENCE_MS);

// One that has ended meanwhile was not there to be cancelled.
async function cancel(api: Api, id: string): Promise<{ status: number; body: Json }> {
  const answer = await api.post(`/v1/executions/${id}:cancel`, { reason: 'enough', grace: '0s' });
  const isThere = answer.status !== 404; // else it is lost, which the checker tells
  return !isThere || JSON.stringify(answer.body).includes('EXECUTION_ENDED') ? { status: 200, body: answer.body } : answer;
}

// Three servers in a row may be lost under one execution: then it fails, and says so.
const endsWell = ({ state, output, input, error }: Json, ends: readonly string[]): boolean =>
  state === 'FAILED' ? error?.type === 'WorkerLost' : ends.includes(state) && (state !== 'SUCCEEDED' || output === input.n);

async function lostAttempts(api: Api, executions: readonly Json[]): Promise<{ lost: number; beyond: number }> {
  const verdict = { lost: 0, beyond: 0 };
  for (const { id, attemptCount } of executions.filter((one) => one.attemptCount > 1)) {
    const { attempts } = await patiently('attempts', () => api.get(`/v1/executions/${id}/attempts`));
    const lost = attempts.filter(({ state }: Json) => state === 'LOST').length;
    verdict.lost += lost;
    verdict.beyond += lost === attemptCount ? lost : attemptCount - 1; // all of them, when it failed for that
  }
  return verdict;
}

const repairsIn = ({ stack }: Rig): number => (readFileSync(join(stack.layout.logs, 'api.log'), 'utf8').match(/put right/g) ?? []).length;
