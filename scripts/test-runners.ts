// Runs a test runner to its end and reads how many tests passed and failed from the file that it writes.
import { spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { treeOf } from '../deploy/local/process-table.ts';

export interface Counts {
  passed: number;
  failed: number;
  failures: string[]; // names
  forms?: Form[]; // what can be done at length
}
// So much of something in the short form of a test, so much in the long one.
export interface Form {
  what: string;
  short: number;
  long: number;
}
interface Run {
  command: readonly string[];
  env: Record<string, string>;
  seconds: number; // after that it is killed
  report: string;
  read: (text: string) => Counts;
}

const TIMEOUT = /\btimeout[=(]([\d_]+)/g; // of mocha's tests, of pytest's children
const GRACE_MS = 5000;
const LINGER_MS = 15_000;
const WATCH_MS = 100;

// A runner that dies, hangs, writes no report or runs no test counts as one that failed.
export async function runTests({ command: [program = '', ...args], env, seconds, report, read }: Run): Promise<Counts> {
  mkdirSync(dirname(report), { recursive: true });
  rmSync(report, { force: true });
  const ended = await run({ program, args, env, seconds, report });
  const counts = readReport(report, read);
  if (counts.passed + counts.failed === 0) return spoilt(counts, `${program} ran no test (${ended})`);
  if (ended !== 'exit 0' && counts.failed === 0) return spoilt(counts, `${program} did not end well (${ended})`);
  return counts;
}

const spoilt = ({ passed, failed, failures, ...rest }: Counts, why: string): Counts => ({
  ...rest,
  passed,
  failed: failed + 1,
  failures: [...failures, why],
});

function readReport(report: string, read: Run['read']): Counts {
  try {
    return existsSync(report) ? read(readFileSync(report, 'utf8')) : { passed: 0, failed: 0, failures: [] };
  } catch (error) {
    return { passed: 0, failed: 1, failures: [`${report} cannot be read: ${(error as Error).message}`] };
  }
}

const running = new Set<number>();
export const killRunners = (): void => running.forEach(killTree);

function killTree(pid: number): void {
  for (const one of treeOf(pid).reverse()) {
    try {
      process.kill(one, 'SIGKILL');
    } catch {
      // it has just ended
    }
  }
}

interface Program {
  program: string;
  args: readonly string[];
  env: Record<string, string>;
  seconds: number;
  report: string;
}

// How it ended. It is killed when it takes too long, or does not end although it has reported: a test has left something open.
function run({ program, args, env, seconds, report }: Program): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'inherit', 'inherit'] });
    const { pid } = child;
    let why = '';
    const started = Date.now();
    const watch = setInterval(() => {
      const reported = statSync(report, { throwIfNoEntry: false })?.mtimeMs;
      if (Date.now() - started > seconds * 1000) why = `killed after ${seconds} s`;
      else if (reported && Date.now() - reported > LINGER_MS) why = 'killed: it reported, but did not end';
      if (why === '') return;
      console.log(`${program} is ${why}`);
      clearInterval(watch);
      if (pid) killTree(pid);
      setTimeout(() => resolve(why), GRACE_MS).unref(); // should something that it started hold its exit back
    }, WATCH_MS);
    if (pid) running.add(pid);
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => {
      clearInterval(watch);
      if (pid) running.delete(pid);
      resolve(why || `exit ${signal ?? code}`);
    });
  });
}

interface Files {
  include: readonly string[];
  exclude?: readonly string[];
}
interface Mocha extends Files {
  name: string;
  runners?: number; // processes side by side that share the files; default 1
  parcels?: number; // of files for each of them, one process each: who is done takes the next one; default 1
  env: Record<string, string>;
  seconds: number;
  timeout: number; // of one test, in milliseconds
}

// With coverage, the sources' use is written below build/coverage, which `coverage` reads.
export async function mocha({ include, exclude = [], ...rest }: Mocha): Promise<Counts> {
  const files = globSync([...include], { exclude: [...exclude] }).sort();
  return files.length === 0
    ? noTests(include)
    : inParcels(files, rest, (some, index, seconds) => runMocha(some, index, { ...rest, seconds }));
}

type Sharing = Pick<Mocha, 'runners' | 'parcels' | 'seconds'>;

// All of them in the given time.
async function inParcels(
  files: readonly string[],
  { runners = 1, parcels = 1, seconds }: Sharing,
  run: (some: readonly string[], index: number, seconds: number) => Promise<Counts>,
): Promise<Counts> {
  const end = performance.now() + seconds * 1000;
  const left = [...share(files, runners * parcels).entries()];
  const counts: Counts[] = [];
  const runner = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [index, some] = next;
      counts.push(await run(some, index, Math.max(0, Math.round(end - performance.now()) / 1000)));
    }
  };
  await Promise.all(Array.from({ length: runners }, runner));
  return sum(counts);
}

// Those that ask for the most time first, then the largest, each to the next share: these take about the same time, and the longest begin first.
export function share(files: readonly string[], count: number): string[][] {
  const weighed = files.map((file) => {
    const text = readFileSync(file, 'utf8');
    return {
      file,
      size: text.length,
      patience: Math.max(0, ...[...text.matchAll(TIMEOUT)].map(([, time = '']) => Number(time.replaceAll('_', '')))),
    };
  });
  weighed.sort((a, b) => b.patience - a.patience || b.size - a.size);
  const shares = Array.from({ length: Math.min(count, files.length) }, (): string[] => []);
  for (const [index, { file }] of weighed.entries()) shares[index % shares.length]?.push(file);
  return shares.map((some) => some.sort());
}

const sum = (all: readonly Counts[]): Counts => ({
  passed: all.reduce((total, { passed }) => total + passed, 0),
  failed: all.reduce((total, { failed }) => total + failed, 0),
  failures: all.flatMap(({ failures }) => failures),
  forms: all.flatMap(({ forms = [] }) => forms),
});

function runMocha(files: readonly string[], index: number, { name, env, seconds, timeout }: Omit<Mocha, 'include'>): Promise<Counts> {
  const report = `build/test/${name}-${index + 1}.json`;
  const colour = process.stdout.isTTY ? [] : ['--no-color'];
  return runTests({
    command: [
      'mocha',
      '--no-config',
      '--extension',
      'ts',
      '--timeout',
      String(timeout),
      '--reporter',
      './scripts/mocha-report.ts',
      ...colour,
      '--',
      ...files,
    ],
    env: { ...env, MILLRACE_TEST_REPORT: report },
    seconds,
    report,
    read: (text) => JSON.parse(text) as Counts,
  });
}

// Of the given files, shared like mocha's.
export async function pytest({ name, include, env, ...rest }: Omit<Mocha, 'exclude' | 'timeout'>): Promise<Counts> {
  const files = globSync([...include]).sort();
  if (files.length === 0) return noTests(include);
  return inParcels(files, rest, (some, index, seconds) => {
    const report = `build/test/${name}-${index + 1}.xml`;
    const command = ['.venv/bin/python', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', `--junitxml=${report}`, '--', ...some];
    return runTests({ command, env, seconds, report, read: readJunit });
  });
}

const noTests = (include: readonly string[]): Counts => ({ passed: 0, failed: 1, failures: [`there are no tests: ${include.join(', ')}`] });

// The sums of a JUnit report as pytest writes it.
export function readJunit(text: string): Counts {
  const suite = /<testsuite\s[^>]*>/.exec(text)?.[0] ?? '';
  const number = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)?.[1] ?? 0);
  const failed = number('failures') + number('errors');
  const failures = [...text.matchAll(/<testcase\s[^>]*?classname="([^"]*)"[^>]*?name="([^"]*)"[^>]*>\s*<(?:failure|error)/g)].map(
    ([, place, name]) => `${place}: ${name}`,
  );
  return { passed: number('tests') - failed - number('skipped'), failed, failures };
}
