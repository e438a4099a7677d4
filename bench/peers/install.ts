// Brings what the peers are, from the registries, into build/peers. Nothing outside that folder changes. Each function throws why it cannot.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from '../../deploy/local/database.ts';
import { REPOSITORY } from '../../deploy/local/layout.ts';

export const HOME = join(REPOSITORY, 'build/peers');
export interface Program {
  command: string;
  env: Record<string, string>;
}

const BULLMQ = ['bullmq@6.7.0', 'ioredis@6.0.0'];
const VERSION = 'v1.5.1'; // of Temporal; later ones cannot be built by `go install`: their go.mod holds a replace directive
const MINUTE = 60_000;
const exec = promisify(execFile);

async function run(
  what: string,
  command: string,
  args: readonly string[],
  minutes: number,
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
) {
  console.error(`==> ${what}`);
  try {
    return (await exec(command, args, { ...options, timeout: minutes * MINUTE, maxBuffer: 64 << 20 })).stdout;
  } catch (error) {
    const { stderr = '', message, killed, code } = error as Error & { stderr?: string; killed?: boolean; code?: unknown };
    if (killed) throw new Error(`${what} took more than ${minutes} minutes`);
    const last = stderr.trim().split('\n').at(-1) || message;
    throw new Error(code === 'ENOENT' ? `${command} is not on this machine` : `${what} failed: ${last.slice(0, 160)}`);
  }
}

// Once for each wanted content, however often it is asked for.
async function once(folder: string, wanted: string, make: () => Promise<void>): Promise<string> {
  const at = join(HOME, folder);
  const digest = createHash('sha256').update(wanted).digest('hex');
  const mark = join(at, 'installed');
  if (existsSync(mark) && readFileSync(mark, 'utf8') === digest) return at;
  rmSync(at, { recursive: true, force: true });
  mkdirSync(at, { recursive: true });
  await make();
  writeFileSync(mark, digest);
  return at;
}

export type Venv = 'queues' | 'prefect' | 'airflow';

// A virtual environment with the pinned requirements; answers its folder of programs.
export async function python(name: Venv): Promise<string> {
  const file = join(import.meta.dirname, `requirements-${name}.txt`);
  const at = await once(`python-${name}`, readFileSync(file, 'utf8'), async () => {
    const target = join(HOME, `python-${name}`);
    await run('a virtual environment', join(REPOSITORY, '.venv/bin/python'), ['-m', 'venv', target], 2);
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--only-binary=:all:', '-r', file];
    await run(`pip install (${name})`, join(target, 'bin/python'), pip, 15);
  });
  return join(at, 'bin');
}

// The folder whose package.json BullMQ is required from.
export async function bullmq(): Promise<string> {
  return once('node', BULLMQ.join(), async () => {
    const at = join(HOME, 'node');
    writeFileSync(join(at, 'package.json'), '{ "private": true }\n');
    const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', ...BULLMQ];
    await run(`npm install ${BULLMQ.join(' ')}`, 'npm', args, 5, { cwd: at });
  });
}

// The machine's own redis-server, else Debian's packages, unpacked: no service is started, and no right to install is needed.
export async function redis(): Promise<Program> {
  const own = findProgram(['redis-server'], (process.env.PATH ?? '').split(delimiter));
  if (own) return { command: own, env: {} };
  const at = await once('redis', 'redis-server', async () => {
    const folder = join(HOME, 'redis');
    const plan = await run(
      'which packages redis-server needs',
      'apt-get',
      ['--simulate', '--no-install-recommends', 'install', 'redis-server'],
      2,
    );
    const packages = [...plan.matchAll(/^Inst (\S+)/gm)].map(([, name = '']) => name);
    if (packages.length === 0) throw new Error('there is no redis-server, and apt-get offers none');
    await run(`apt-get download ${packages.join(' ')}`, 'apt-get', ['download', ...packages], 5, { cwd: folder });
    for (const file of readdirSync(folder).filter((one) => one.endsWith('.deb')))
      await run(`unpacking ${file}`, 'dpkg-deb', ['--extract', file, '.'], 1, { cwd: folder });
  });
  const lib = join(at, 'usr/lib');
  const libraries = existsSync(lib) ? readdirSync(lib, { withFileTypes: true }).filter((one) => one.isDirectory()) : [];
  return {
    command: join(at, 'usr/bin/redis-server'),
    env: { LD_LIBRARY_PATH: libraries.map(({ name }) => join(lib, name)).join(delimiter) },
  };
}

// Temporal's CLI, whose dev server is the server in one process. Building it is asked for: it is dear.
export async function temporal(): Promise<Program> {
  const { TEMPORAL = '', PATH = '' } = process.env;
  const own = TEMPORAL.includes('/') ? TEMPORAL : findProgram(['temporal'], PATH.split(delimiter));
  if (own) return { command: own, env: {} };
  if (TEMPORAL !== 'build' && !existsSync(join(HOME, 'temporal/installed')))
    throw new Error(
      'there is no Temporal CLI; TEMPORAL=build builds one (about 4 minutes on two idle cores, 3.2 GB of disk meanwhile), TEMPORAL=/path/to/temporal uses one',
    );
  const at = await once('temporal', VERSION, () => build(join(HOME, 'temporal')));
  return { command: join(at, 'temporal'), env: {} };
}

// With the Go that the Python packages bring, else the machine's. The sources and what the compiler keeps are removed after.
async function build(folder: string): Promise<void> {
  const lib = readdirSync(join(REPOSITORY, '.venv/lib'))[0] ?? '';
  const bundled = join(REPOSITORY, '.venv/lib', lib, 'site-packages/go/bin/go');
  const work = join(HOME, 'go');
  const env = {
    ...process.env,
    ...{ GOPATH: join(work, 'path'), GOCACHE: join(work, 'cache'), GOBIN: join(work, 'bin') },
    ...{ GOTOOLCHAIN: 'local', GOFLAGS: '-modcacherw -trimpath', CGO_ENABLED: '0' },
  };
  try {
    const args = ['install', '-ldflags=-s -w', `github.com/temporalio/cli/cmd/temporal@${VERSION}`];
    await run(`building Temporal ${VERSION}`, existsSync(bundled) ? bundled : 'go', args, 30, { env });
    cpSync(join(work, 'bin/temporal'), join(folder, 'temporal'));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
