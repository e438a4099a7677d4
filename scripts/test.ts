// `make test`: every part in order, on a database and a broker of its own. Ends with the line `N passed, N failed`.
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { startStack } from '../deploy/local/stack.ts';
import { isLong } from '../tests/long.ts';
import { lint } from './lint.ts';
import { type Counts, type Form, killRunners, mocha, pytest } from './test-runners.ts';

interface Part {
  name: string;
  what: string;
  budget: number; // seconds
  run: (env: Record<string, string>, seconds: number) => Promise<Counts>;
}

const LONG = 10; // times as much time
const PATIENCE = 2; // budgets, after which a part is killed; all budgets together are 15 minutes
const COVERAGE = 'build/coverage/raw';
const CODE = ['services', 'envoy', 'deploy', 'scripts'];

const parts: readonly Part[] = [
  { name: 'lint', what: 'contracts, types, style', budget: 15, run: async () => lint() },
  {
    name: 'services',
    what: 'mocha: services, edge, launcher, scripts',
    budget: isLong ? 250 * LONG : 250,
    run: (env, seconds) =>
      mocha({
        name: 'services',
        include: [...CODE.map((folder) => `${folder}/**/*.test.ts`), 'tests/*.test.ts'],
        runners: 5,
        parcels: 6,
        env: { ...env, NODE_V8_COVERAGE: COVERAGE },
        seconds,
        timeout: isLong ? 20_000 * LONG : 20_000,
      }),
  },
  {
    name: 'automation',
    what: 'pytest: the automation server',
    budget: 115,
    run: (env, seconds) => pytest({ name: 'automation', include: ['automation/tests/**/test_*.py'], runners: 3, parcels: 5, env, seconds }),
  },
  {
    name: 'e2e',
    what: 'mocha: a whole stack, as a user sees it',
    budget: 120,
    run: (env, seconds) => mocha({ name: 'e2e', include: ['tests/e2e/**/*.test.ts'], runners: 3, env, seconds, timeout: 60_000 }),
  },
  {
    name: 'chaos',
    what: isLong ? 'mocha: kills, long' : 'mocha: kills, short',
    budget: isLong ? 14_400 : 400,
    run: (env, seconds) =>
      mocha({ name: 'chaos', include: ['tests/chaos/**/*.test.ts'], runners: 2, env, seconds, timeout: isLong ? 1_800_000 : 120_000 }),
  },
];

interface Row extends Counts {
  part: Part;
  seconds: number;
}

function choose(): readonly Part[] {
  const wanted = process.env.PART?.split(',');
  const unknown = wanted?.find((name) => !parts.some((part) => part.name === name));
  if (unknown !== undefined) {
    console.error(`there is no part ${unknown}: PART is one of ${parts.map(({ name }) => name).join(', ')}`);
    process.exit(2);
  }
  return wanted ? parts.filter(({ name }) => wanted.includes(name)) : parts;
}

// A stack that cannot start fails the parts that need it; the others still run.
async function openStores(): Promise<{ env: Record<string, string>; stop: () => Promise<void> }> {
  const stack = await startStack({ parts: ['database', 'broker'], say: (line) => console.log(`  ${line}`) });
  return { env: { MILLRACE_TEST_DATABASE_URL: stack.wiring.databaseUrl, MILLRACE_TEST_NATS_URL: stack.wiring.natsUrl }, stop: stack.stop };
}

function table(rows: readonly Row[]): string {
  const cells = rows.map(({ part, seconds, passed, failed }) => [
    part.name,
    part.what,
    `${seconds.toFixed(0)} s`,
    `${part.budget} s${seconds > part.budget ? '  OVER' : ''}`,
    String(passed),
    String(failed),
  ]);
  const all = [['PART', 'WHAT', 'TOOK', 'BUDGET', 'PASSED', 'FAILED'], ...cells];
  const widths = (all[0] ?? []).map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n'); // prettier-ignore
}

function coverage(): void {
  const include = CODE.flatMap((folder) => ['--include', `${folder}/**/*.ts`]);
  const exclude = ['--exclude', '**/*.test.ts', '--exclude', '**/migrations/**'];
  spawnSync(
    'c8',
    [
      'report',
      '--temp-directory',
      COVERAGE,
      '--reports-dir',
      'build/coverage',
      '--reporter',
      'text-summary',
      '--reporter',
      'lcovonly',
      '--all',
      ...include,
      ...exclude,
    ],
    {
      stdio: ['ignore', 'inherit', 'inherit'],
    },
  );
}

// Which cases ran in which form.
function formsTold(forms: readonly Form[]): string {
  if (forms.length === 0) return '';
  if (!isLong) return `\n${forms.length} cases have a long form: make test-long`;
  const rows = forms.map(({ what, short, long }) => `  ${what}: ${long} instead of ${short}`);
  return `\n${forms.length} cases ran in their long form:\n${rows.join('\n')}`;
}

async function main(): Promise<number> {
  const chosen = choose();
  rmSync(COVERAGE, { recursive: true, force: true });
  const needsStores = chosen.some(({ name }) => name !== 'lint');
  const stores = needsStores ? await openStores() : { env: {}, stop: async () => undefined };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      killRunners();
      stores.stop().finally(() => process.exit(1));
    });
  }
  const rows: Row[] = [];
  for (const part of chosen) {
    console.log(`\n===== ${part.name}: ${part.what} (budget ${part.budget} s)`);
    const started = performance.now();
    const counts = await part
      .run(stores.env, part.budget * PATIENCE)
      .catch((error: Error): Counts => ({ passed: 0, failed: 1, failures: [error.stack ?? error.message] }));
    rows.push({ part, seconds: (performance.now() - started) / 1000, ...counts });
  }
  await stores.stop();
  if (chosen.some(({ name }) => name === 'services')) {
    console.log('\n===== coverage of the services part');
    coverage();
  }
  const failures = rows.flatMap(({ part, failures: names }) => names.map((name) => `  ${part.name}: ${name}`));
  const sum = (pick: (row: Row) => number) => rows.reduce((total, row) => total + pick(row), 0);
  const budget = sum(({ part }) => part.budget);
  console.log(`\n${table(rows)}\nall parts took ${sum(({ seconds }) => seconds).toFixed(0)} s of ${budget} s`);
  console.log(formsTold(rows.flatMap(({ forms = [] }) => forms))); // of mocha; pytest has one form
  if (failures.length > 0) console.log(`\nfailed:\n${failures.join('\n')}`);
  const failed = sum((row) => row.failed);
  console.log(`\n${sum((row) => row.passed)} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

main().then(
  (code) => process.exit(code),
  (error) => {
    console.error(error);
    console.log('\n0 passed, 1 failed');
    process.exit(1);
  },
);
