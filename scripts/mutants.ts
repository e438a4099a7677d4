// `make mutants`: leaves out one mechanism of the engine at a time, in a copy of the tree, and runs the test that is named for it. A mutant that
// survives means that the test proves nothing. MUTANT=<name> runs one. Ends with the line `N caught, N survived`.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { startStack } from '../deploy/local/stack.ts';

interface Mutant {
  name: string;
  file: string;
  edits: readonly [from: string, to: string][];
  test: string;
  case: string;
}

const ROOT = join(import.meta.dirname, '..');
const LINKED = ['node_modules', 'build', '.venv'];
const SECONDS = 240; // for one run of a test
const EXECUTIONS = 'services/executions';

export const mutants: readonly Mutant[] = [
  {
    name: 'no fence',
    file: `${EXECUTIONS}/dispatcher/intake.ts`,
    edits: [['!row?.claim_id.equals(report.claimId) || !row.server.equals(report.server)', '!row']],
    test: `${EXECUTIONS}/dispatcher/intake.test.ts`,
    case: 'writes nothing of a claim that is not the present one',
  },
  {
    name: 'plain-read fence',
    file: `${EXECUTIONS}/engine/finish.ts`,
    edits: [['WHERE execution IN (?) ORDER BY execution FOR UPDATE', 'WHERE execution IN (?) ORDER BY execution']],
    test: `${EXECUTIONS}/dispatcher/fence.test.ts`,
    case: 'is read with a lock',
  },
  {
    name: 'a remembered claim that is not compared',
    file: `${EXECUTIONS}/dispatcher/intake-store.ts`,
    edits: [['`ROW_COUNT() = $', '`1 = 1 OR ROW_COUNT() = $']],
    test: `${EXECUTIONS}/dispatcher/intake.test.ts`,
    case: 'ends nothing by what has changed since the claim',
  },
  {
    name: 'a remembered claim that takes a later one out of running',
    file: `${EXECUTIONS}/dispatcher/intake-store.ts`,
    edits: [['execution IN (?) AND claim_id IN (?) AND', '(execution IN (?) OR claim_id IN (?)) AND']],
    test: `${EXECUTIONS}/dispatcher/fence.test.ts`,
    case: 'by what the claim knew',
  },
  {
    name: 'a claim by notice that does not lock the servers',
    file: `${EXECUTIONS}/engine/owned.ts`,
    edits: [["const SHARED = 'LOCK IN SHARE MODE';", "const SHARED = '';"]],
    test: `${EXECUTIONS}/dispatcher/fresh.test.ts`,
    case: 'waits for a takeover',
  },
  {
    name: 'a lent place whose server is not compared',
    file: `${EXECUTIONS}/engine/loans.ts`,
    edits: [['`COUNT(*) = 1 AND NOT', '`1 = 1 OR COUNT(*) = 1 AND NOT']],
    test: `${EXECUTIONS}/loans.test.ts`,
    case: 'is left alone while somebody takes the server over',
  },
  {
    name: 'a claim that is started although it was given back',
    file: `${EXECUTIONS}/dispatcher/ledger.ts`,
    edits: [['if (lost.has(hex(claimId))) return false;', '']],
    test: `${EXECUTIONS}/dispatcher/lent.test.ts`,
    case: 'is given back when that never does',
  },
  {
    name: 'a remembered automation that is not compared',
    file: `${EXECUTIONS}/accept-store.ts`,
    edits: [['unless(isAlike)', "unless('1 = 1')"]],
    test: `${EXECUTIONS}/accept.test.ts`,
    case: 'by what it remembers',
  },
  {
    name: 'attempt-number fence',
    file: `${EXECUTIONS}/dispatcher/claim.ts`,
    edits: [
      ['import { randomBytes } from', 'import { createHash } from'],
      [
        '= randomBytes(CLAIM_BYTES)',
        "= createHash('md5').update(row.execution).update(String(row.attempt)).digest().subarray(0, CLAIM_BYTES)",
      ],
    ],
    test: `${EXECUTIONS}/dispatcher/fence.test.ts`,
    case: 'tells a repeated attempt from the one before',
  },
  {
    name: 'fence that forgets CANCELLING',
    file: `${EXECUTIONS}/engine/finish.ts`,
    edits: [['FROM running WHERE execution IN (?) ORDER BY', "FROM running WHERE execution IN (?) AND state = 'RUNNING' ORDER BY"]],
    test: `${EXECUTIONS}/dispatcher/flow.test.ts`,
    case: 'takes lines and a result in time from one that was asked to stop',
  },
  {
    name: 'no sweep',
    file: `${EXECUTIONS}/dispatcher/sweep.ts`,
    edits: [
      ['await untilRung(bus, first);', ''],
      ['ring(bus, others);', 'void [ring, untilRung, others];'],
    ],
    test: `${EXECUTIONS}/dispatcher/flow.test.ts`,
    case: 'runs everything although the broker forgets all',
  },
  {
    name: 'no work without tickets',
    file: `${EXECUTIONS}/dispatcher/sweep.ts`,
    edits: [['return lanes;', 'return [];']],
    test: `${EXECUTIONS}/dispatcher/sweep.test.ts`,
    case: 'starts once a second what is there, when the broker is away',
  },
  {
    name: 'a cancel before the claim was sent, forgotten',
    file: `${EXECUTIONS}/dispatcher/ledger.ts`,
    edits: [["if (mine.get(claim) === 'EXPECTED') cancelled.add(claim);", 'void claim;']],
    test: `${EXECUTIONS}/dispatcher/ledger.test.ts`,
    case: 'tells of a cancel that came before the claim was sent, and of one that came with it',
  },
  {
    name: 'ticket acked after the claim',
    file: `${EXECUTIONS}/dispatcher/turns.ts`,
    edits: [
      [
        'const confirmed = await Promise.all(taken.map(({ message }) => ack(connection, message)));',
        'const confirmed = taken.map(({ message }) => laneOfTicket(bus.prefix, message.subject));',
      ],
      [
        'if (lanes.length > 0) await take([...new Set(lanes)]);',
        'if (lanes.length > 0) await take([...new Set(lanes)]);\n    await Promise.all(taken.map(({ message }) => ack(connection, message)));',
      ],
    ],
    test: `${EXECUTIONS}/dispatcher/turns.test.ts`,
    case: 'hands out a turn for what comes while the lane is being claimed',
  },
  {
    name: "local clock for others' leases",
    file: `${EXECUTIONS}/dispatcher/overdue.ts`,
    edits: [
      [
        `"SELECT id FROM servers WHERE state = 'LIVE' AND lease_until < NOW(6)"`,
        `format("SELECT id FROM servers WHERE state = 'LIVE' AND lease_until < ?", [new Date()])`,
      ],
      [" AND state = 'LIVE' AND lease_until < NOW(6)`", " AND state = 'LIVE'`"],
    ],
    test: `${EXECUTIONS}/dispatcher/fence.test.ts`,
    case: 'of leases is the database’s clock',
  },
  {
    name: 'no dedup of batch keys',
    file: `${EXECUTIONS}/accept.ts`,
    edits: [['settleKeys(items, await store.claimKeys(connection, entries), outcomes)', 'await store.claimKeys(connection, entries)']],
    test: `${EXECUTIONS}/accept.test.ts`,
    case: 'makes one execution of many equal requests, at once and later',
  },
  {
    name: 'slot not freed',
    file: `${EXECUTIONS}/engine/finish.ts`,
    edits: [['row.limit_key !== null && !isBack(verdict)', "row.limit_key !== null && verdict.to === 'RETRYING'"]],
    test: `${EXECUTIONS}/dispatcher/flow.test.ts`,
    case: 'never has more running than a limit allows, and lets the first waiter in',
  },
  {
    name: 'first waiter not promoted',
    file: `${EXECUTIONS}/engine/slots.ts`,
    edits: [['const waiters = heads[index] ?? [];', 'const waiters = (heads[index] ?? []).slice(0, 0);']],
    test: `${EXECUTIONS}/engine/leave.test.ts`,
    case: 'gives the slot of a ready one to the first waiter, in the order of their coming',
  },
  {
    name: 'what is paused keeps its slot',
    file: `${EXECUTIONS}/engine/hold.ts`,
    edits: [['    ...given.statements,\n', '']],
    test: `${EXECUTIONS}/dispatcher/simulation.test.ts`,
    case: 'stand the same after the same commands',
  },
];

const bin = (name: string): string => join(ROOT, 'node_modules', '.bin', name);

// The tracked files as they stand, with what is generated or installed linked in.
function copyTree(): string {
  const tree = mkdtempSync(join(tmpdir(), 'millrace-mutants-'));
  const { stdout } = spawnSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], { cwd: ROOT, encoding: 'utf8' });
  for (const file of stdout.split('\0').filter((name) => name !== '')) {
    mkdirSync(join(tree, dirname(file)), { recursive: true });
    cpSync(join(ROOT, file), join(tree, file), { force: true, errorOnExist: false });
  }
  for (const name of LINKED) symlinkSync(join(ROOT, name), join(tree, name));
  return tree;
}

// Whether the named test passes; a run without an end counts as one that does not.
function passes(tree: string, mutant: Mutant, env: Record<string, string>): { isGreen: boolean; said: string } {
  const { status, stdout, stderr } = spawnSync(bin('mocha'), ['--exit', '--timeout', '60000', mutant.test, '--fgrep', mutant.case], {
    cwd: tree,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: SECONDS * 1000,
    killSignal: 'SIGKILL',
  });
  return { isGreen: status === 0, said: `${stdout}${stderr}` };
}

// Every edit must find its text: code that moved on needs its mutants moved on.
function mutate(tree: string, { name, file, edits }: Mutant): () => void {
  const before = readFileSync(join(tree, file), 'utf8');
  let text = before;
  for (const [from, to] of edits) {
    if (text.split(from).length !== 2) throw new Error(`${name}: ${file} does not have once: ${from}`);
    text = text.replace(from, () => to);
  }
  writeFileSync(join(tree, file), text);
  return () => writeFileSync(join(tree, file), before);
}

async function main(): Promise<number> {
  const wanted = mutants.filter(({ name }) => !process.env.MUTANT || name === process.env.MUTANT);
  const given = process.env.MILLRACE_TEST_DATABASE_URL !== undefined;
  const stack = given ? undefined : await startStack({ parts: ['database', 'broker'], say: (line) => console.log(`  ${line}`) });
  const env: Record<string, string> = stack
    ? { MILLRACE_TEST_DATABASE_URL: stack.wiring.databaseUrl, MILLRACE_TEST_NATS_URL: stack.wiring.natsUrl }
    : {};
  const tree = copyTree();
  const counts = { caught: 0, survived: 0 };
  try {
    for (const mutant of wanted) {
      const whole = passes(tree, mutant, env);
      if (!whole.isGreen) throw new Error(`${mutant.name}: its test fails without it\n${whole.said}`);
      const restore = mutate(tree, mutant);
      const { isGreen } = passes(tree, mutant, env);
      restore();
      counts[isGreen ? 'survived' : 'caught'] += 1;
      console.log(`${isGreen ? 'SURVIVED' : 'caught  '}  ${mutant.name}  (${mutant.test}: ${mutant.case})`);
    }
  } finally {
    rmSync(tree, { recursive: true, force: true });
    await stack?.stop();
  }
  console.log(`\n${counts.caught} caught, ${counts.survived} survived`);
  return counts.survived === 0 && counts.caught > 0 ? 0 : 1;
}

if (import.meta.main) process.exit(await main());
