// `make doctor`: what this machine has, what is missing, and how to get it.
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findMariadbd } from './database.ts';
import type { Choices } from './environment.ts';
import { StartFault } from './faults.ts';
import { REPOSITORY } from './layout.ts';
import { FIRST_PUBLIC, isFree } from './ports.ts';
import { brokerReady, databaseReady } from './ready.ts';

interface Finding {
  what: string;
  is: string;
  wayOut?: string; // set when it keeps the stack from running
  hint?: string; // set when something less is missing
}

const run = promisify(execFile);
const first = async (command: string, ...args: string[]): Promise<string> => {
  const { stdout, stderr } = await run(command, args, { timeout: 10_000 });
  return (stdout.trim() || stderr.trim()).split('\n')[0] ?? '';
};
const at = (path: string) => join(REPOSITORY, path);

async function machine(): Promise<Finding> {
  const is = `${process.platform} ${process.arch}`;
  const isSupported = process.platform === 'linux' && ['x64', 'arm64'].includes(process.arch);
  return { what: 'machine', is, ...(isSupported ? {} : { wayOut: 'use Linux on x86_64 or arm64, a virtual machine or Compose' }) };
}

async function program(what: string, wayOut: string, version: () => Promise<string>): Promise<Finding> {
  try {
    return { what, is: await version() };
  } catch (error) {
    const known = error instanceof StartFault ? error.wayOut : wayOut;
    return { what, is: `missing: ${(error as Error).message.split('\n')[0]}`, wayOut: known };
  }
}

async function python(choices: Choices): Promise<string> {
  const version = await first(choices.python, '--version');
  const [major = 0, minor = 0] = version.replace('Python ', '').split('.').map(Number);
  if (major < 3 || (major === 3 && minor < 11))
    throw new StartFault(`${version} is too old`, 'install Python 3.11 or newer with venv, then delete .venv and run make again');
  return version;
}

async function database(choices: Choices): Promise<string> {
  if (choices.databaseUrl) return `${await databaseReady(choices.databaseUrl)} by MILLRACE_DATABASE_URL`;
  const path = findMariadbd(choices.mariadbd);
  const version = await first(path, '--no-defaults', '--version');
  const [, major = '0', minor = '0'] = /Ver (\d+)\.(\d+)/.exec(version) ?? [];
  if (Number(major) * 100 + Number(minor) < 1011)
    throw new StartFault(`${path} is ${major}.${minor}`, 'MariaDB 10.11 or newer is needed: install it, or set MILLRACE_DATABASE_URL');
  return `MariaDB ${major}.${minor} (${path})`;
}

async function space(home: string): Promise<Finding> {
  const { bavail, bsize } = statfsSync(existsSync(home) ? home : REPOSITORY);
  const gib = (bavail * bsize) / 2 ** 30;
  return { what: 'disk', is: `${gib.toFixed(1)} GiB free`, ...(gib < 2 ? { wayOut: 'make room: 2 GiB are needed' } : {}) };
}

async function memory(): Promise<Finding> {
  const kib = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
  return {
    what: 'memory',
    is: `${(kib / 2 ** 20).toFixed(1)} GiB available`,
    ...(kib < 1.5 * 2 ** 20 ? { hint: 'less than 1.5 GiB: parts may be killed' } : {}),
  };
}

async function port(choices: Choices): Promise<Finding> {
  const free = await isFree(FIRST_PUBLIC);
  const hint = choices.edgeAddress || free ? {} : { hint: 'the next free one is taken; it is said in the banner' };
  return { what: `port ${FIRST_PUBLIC}`, is: free ? 'free' : 'taken', ...hint };
}

async function folder(what: string, path: string, wayOut: string): Promise<Finding> {
  return existsSync(at(path)) ? { what, is: path } : { what, is: 'missing', wayOut };
}

export async function doctor(choices: Choices): Promise<number> {
  const findings = await Promise.all([
    machine(),
    program('node', 'run `npm ci`', () => first(choices.node, '--version')),
    program('python', 'run `make up`, which makes .venv', () => python(choices)),
    program('database', 'see the README', () => database(choices)),
    choices.natsUrl
      ? program(
          'broker',
          'start the server that MILLRACE_NATS_URL names',
          async () => `NATS ${await brokerReady(choices.natsUrl ?? '')} by MILLRACE_NATS_URL`,
        )
      : program('broker', 'run `make up`, which installs it', () => first(choices.natsServer, '--version')),
    program('edge', 'run `make up`, which installs it', async () => (await first(choices.envoy, '--version')).replace(/^.*version: /, '')),
    folder('stubs', 'build/image.binpb', 'run `make gen`'),
    folder('script libraries', 'build/environments/base', 'run `make up`, which installs them'),
    space(choices.home),
    memory(),
    port(choices),
  ]);
  const width = Math.max(...findings.map(({ what }) => what.length));
  for (const { what, is, wayOut, hint } of findings) {
    console.log(
      `${wayOut ? 'FAIL' : hint ? 'note' : ' ok '}  ${what.padEnd(width)}  ${is}${wayOut || hint ? `\n      ${' '.repeat(width)}  -> ${wayOut ?? hint}` : ''}`,
    );
  }
  const failed = findings.filter(({ wayOut }) => wayOut).length;
  console.log(failed === 0 ? 'Everything that Millrace needs is here.' : `${failed} thing(s) to mend.`);
  return failed === 0 ? 0 : 1;
}
