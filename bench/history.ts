// `make bench-history`: what a long history costs. Two stacks, one with 1,000,000 finished executions (COUNT=) and one with 5,000, measured in turns, so
// that whatever else the machine does meets both. Prints ratios and query plans and keeps them in bench/results. REPEAT= rounds, 5 by default.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';
import { Execution, Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { openDialer } from '#platform/client.ts';
import { loadContract } from '#platform/contract.ts';
import { toBytes } from '#platform/id.ts';
import { type Stack, startStack } from '../deploy/local/stack.ts';
import { publish, signUp } from '../tests/e2e/rest.ts';
import { median, percentile } from './figures.ts';
import { load, reachBack } from './history-load.ts';
import { plan, sent } from './history-plans.ts';
import { type Bench, finishing, NOTHING } from './scenarios.ts';

const COUNT = Number(process.env.COUNT ?? 1_000_000);
const REPEAT = Number(process.env.REPEAT ?? 5);
const LITTLE = Math.min(5000, COUNT); // on the other side, so that pages are as full there
const RUN = Number(process.env.RUN ?? 1000); // executions in a round
const LISTS = 50;
const PAGES = 10; // as many as both sides have
const WRONG = 1.2;
const GOAL = 1.05;

interface Side {
  stack: Stack;
  bench: Bench; // of a workspace that has half of the history
  small: Bench; // of one that has a thousand executions of it
  database: Connection;
  automation: string; // of the listed executions, loaded ones too
  finished: [template: Buffer, small: Buffer];
  close(): Promise<void>;
}
type Figures = Map<string, number>;

async function open(hasHistory: boolean): Promise<Side> {
  const settings = { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_LOG_LEVEL: 'warn', MILLRACE_IDENTITY_ACCESS_SECONDS: '3600' };
  const stack = await startStack({ settings });
  const [first, second] = [await person(stack), await person(stack)];
  const { MILLRACE_DATABASE_URL = '', MILLRACE_DATABASE_PREFIX = '' } = stack.env;
  const database = await createConnection({ uri: new URL(`${MILLRACE_DATABASE_PREFIX}_executions`, MILLRACE_DATABASE_URL).href });
  if (hasHistory) await reachBack(database);
  const [one, other] = [await finished(first.bench), await finished(second.bench)];
  const close = async () => {
    await database.end();
    first.close();
    second.close();
    await stack.stop();
  };
  return { stack, bench: first.bench, small: second.bench, database, automation: one.automation, finished: [one.id, other.id], close };
}

async function person(stack: Stack): Promise<{ bench: Bench; close(): void }> {
  const api = await signUp(stack.urls.base);
  const dialer = openDialer({ contract: loadContract('build/image.binpb'), sign: async () => api.token });
  const client = (address: string) => dialer.client(ExecutionServiceService, address);
  // Reused sandboxes: the least that is not the database.
  const bench: Bench = { api, direct: client(stack.urls.services), edge: client(stack.urls.host), quick: false, isolation: 'REUSED' };
  return { bench, close: () => dialer.close() };
}

async function finished({ api, direct }: Bench): Promise<{ automation: string; id: Buffer }> {
  const automation = await publish(api, NOTHING, { isolation: 'REUSED' });
  const execution = Execution.fromPartial({ automationId: automation });
  const { id } = await direct.runAndWait({ execution, wait: undefined, requestId: '' });
  return { automation, id: toBytes('execution', id) };
}

// The sum of a metric's values over a stack's processes, whatever its other labels are.
async function metric({ stack }: Side, name: string, label = ''): Promise<number> {
  let sum = 0;
  for (const process of Object.keys(stack.wiring.processes)) {
    const text = await (await fetch(`${stack.urls.admin[process]}/metrics`)).text();
    for (const line of text.split('\n')) {
      if (new RegExp(`^${name}(\\{| )`).test(line) && line.includes(label)) sum += Number(line.slice(line.lastIndexOf(' ')));
    }
  }
  return sum;
}

// Rows that the server was made to read: a figure without noise.
async function rowsRead({ database }: Side): Promise<number> {
  const [rows] = await database.query<RowDataPacket[]>("SHOW GLOBAL STATUS LIKE 'Handler_read%'");
  return rows.reduce((sum, row) => sum + Number(row.Value), 0);
}

async function counters(side: Side) {
  const batch = (name: string, kind: string) => metric(side, `millrace_batch_${kind}_sum`, `batch="${name}"`);
  return {
    accept: await batch('executions.accept', 'commit_seconds'),
    finish: await batch('dispatcher.intake', 'commit_seconds'),
    claim: await metric(side, 'millrace_dispatcher_claim_seconds_sum'),
    rows: await rowsRead(side),
  };
}

const OPEN = [State.SCHEDULED, State.QUEUED, State.RUNNING, State.RETRYING, State.CANCELLING];
interface Listed {
  what: string;
  states: State[];
  isOfAutomation?: true;
  isSmall?: true;
}
const LISTED: Listed[] = [
  { what: 'list all', states: [] },
  { what: 'list an automation', states: [], isOfAutomation: true },
  { what: 'list SUCCEEDED', states: [State.SUCCEEDED] },
  { what: 'list FAILED of an automation', states: [State.FAILED], isOfAutomation: true },
  { what: 'list open', states: OPEN },
  { what: 'list all of a small workspace', states: [], isSmall: true },
  { what: 'list FAILED of a small workspace', states: [State.FAILED], isSmall: true },
];

// One page after the other, and from the first on again.
async function listing(side: Side, times: number): Promise<Figures> {
  const { bench, small, automation } = side;
  const figures: Figures = new Map();
  for (const { what, states, isOfAutomation, isSmall } of LISTED) {
    const took: number[] = [];
    const before = await rowsRead(side);
    const automationId = isOfAutomation ? automation : '';
    let pageToken = '';
    for (let n = 0; n < times; n += 1) {
      const request = { states, automationId, pageSize: 50, pageToken, createTimeFrom: undefined, createTimeTo: undefined };
      const begin = performance.now();
      const page = await (isSmall ? small : bench).direct.listExecutions(request);
      took.push(performance.now() - begin);
      pageToken = (n + 1) % PAGES === 0 ? '' : page.nextPageToken;
    }
    figures.set(`${what}, p50 of a page, ms`, percentile(took, 0.5));
    figures.set(`${what}, rows read for a page`, ((await rowsRead(side)) - before) / times);
  }
  return figures;
}

async function round(side: Side): Promise<Figures> {
  const before = await counters(side);
  const begin = performance.now();
  await finishing(side.bench, RUN);
  const whole = performance.now() - begin;
  const after = await counters(side);
  const each = (name: keyof typeof before, unit = 1000) => ((after[name] - before[name]) * unit) / RUN;
  return new Map([
    ['accept, ms of commit for each', each('accept')],
    ['claim, ms of transaction for each', each('claim')],
    ['start and finish, ms of commit for each', each('finish')],
    ['from the first submit to the last end, ms for each', whole / RUN],
    ['rows read for each', each('rows', 1)],
    ...(await listing(side, LISTS)),
  ]);
}

function compared(little: readonly Figures[], much: readonly Figures[]): string {
  const names = [...(little[0]?.keys() ?? [])];
  const of = (rounds: readonly Figures[], name: string) => median(rounds.map((figures) => figures.get(name) ?? Number.NaN));
  const lines = names.map((name) => {
    const [plain, loaded] = [of(little, name), of(much, name)];
    const ratio = loaded / plain;
    const verdict = ratio > WRONG ? 'WRONG' : ratio > GOAL ? 'above the goal' : '';
    return `${name.padEnd(52)} ${plain.toFixed(2).padStart(10)} ${loaded.toFixed(2).padStart(10)} ${ratio.toFixed(2).padStart(6)}x  ${verdict}`;
  });
  return [
    `${''.padEnd(52)} ${String(LITTLE).padStart(10)} ${String(COUNT).padStart(10)}  ratio   (wrong above ${WRONG}x, goal ${GOAL}x)`,
    ...lines,
  ].join('\n');
}

const plain = await open(false);
try {
  const loaded = await open(true);
  try {
    console.error(`loading ${COUNT} finished executions`);
    const begin = performance.now();
    await load(plain.database, LITTLE, ...plain.finished);
    await load(loaded.database, COUNT, ...loaded.finished);
    console.error(`loaded in ${((performance.now() - begin) / 1000).toFixed(0)} s`);
    for (const side of [plain, loaded]) await round(side); // a process that has just started is not what is measured
    const rounds = { plain: [] as Figures[], loaded: [] as Figures[] };
    for (let n = 1; n <= REPEAT; n += 1) {
      console.error(`round ${n} (load ${loadavg()[0]?.toFixed(1)})`);
      rounds.plain.push(await round(plain));
      rounds.loaded.push(await round(loaded));
    }
    const statements = await sent(loaded.database, async () => {
      await finishing(loaded.bench, 10);
      await listing(loaded, 2);
    });
    const plans = [];
    for (const statement of statements) plans.push(await plan(loaded.database, statement));
    const text = `What ${COUNT} finished executions cost, median of ${REPEAT} rounds in turns of ${RUN} executions
${cpus().length} x ${cpus()[0]?.model}, kernel ${release()}, load ${loadavg()[0]?.toFixed(1)}

${compared(rounds.plain, rounds.loaded)}

Plans of the statements that read the history, as they were sent
${plans.flatMap((one) => one?.text ?? []).join('\n')}
`;
    console.log(text);
    mkdirSync('bench/results', { recursive: true });
    writeFileSync(`bench/results/${COUNT < 1_000_000 ? 'quick-history' : 'history'}.txt`, text);
  } finally {
    await loaded.close();
  }
} finally {
  await plain.close();
}
