// The parts that are ours: processes of services, automation servers, and the edge. Also the commands that run once.
import { execFile, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ENVOY_FLAGS } from '../../envoy/bootstrap.ts';
import {
  adminOf,
  automationEnvironment,
  BUILDER,
  builderEnvironment,
  type Env,
  edgeEnvironment,
  grpcOf,
  migrationEnvironment,
  serviceEnvironment,
  type Wiring,
} from './environment.ts';
import { StartFault, wayOut } from './faults.ts';
import { REPOSITORY } from './layout.ts';
import { lastLines, sizeOf } from './log-file.ts';
import type { Part } from './part.ts';
import { httpReady } from './ready.ts';

const GUARD = join(import.meta.dirname, 'guard.py');

interface Once {
  what: string;
  command: string;
  args: readonly string[];
  env: Env;
  log: string;
  guard: string;
  signal?: AbortSignal;
}

// Runs a command to its end. Throws a StartFault with its last lines when it fails.
export async function runOnce({ what, command, args, env, log, guard, signal }: Once): Promise<void> {
  const from = sizeOf(log);
  const file = openSync(log, 'a', 0o600);
  const child = spawn(guard, ['-I', '-S', GUARD, String(process.pid), command, ...args], {
    cwd: REPOSITORY,
    env,
    stdio: ['ignore', file, file],
  });
  closeSync(file);
  const kill = () => child.kill('SIGKILL');
  signal?.addEventListener('abort', kill);
  const how = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, by) => resolve(code === 0 ? undefined : by ? `killed by ${by}` : `exit status ${code}`));
  });
  signal?.removeEventListener('abort', kill);
  if (how === undefined) return;
  const lines = lastLines(log, from, 15);
  throw new StartFault(`${what} failed (${how})`, wayOut(lines, `read ${log}, mend what it says, then try again`), lines);
}

export const migrate = (w: Wiring, log: string, signal?: AbortSignal): Promise<void> =>
  runOnce({
    what: 'the migration of the schemas',
    command: w.choices.node,
    args: ['services/migrate.ts', 'up'],
    env: migrationEnvironment(w),
    log,
    guard: w.choices.python,
    ...(signal ? { signal } : {}),
  });

// MariaDB does not wait for the disk with the files that say which partitions a table has: in a power cut soon after they were written they
// would be lost, and the table could not be opened any more.
export const settleOnDisk = (w: Wiring, log: string, signal?: AbortSignal): Promise<void> =>
  runOnce({
    what: 'writing the schemas to the disk',
    command: 'sync',
    args: ['--file-system', w.layout.data],
    env: {},
    log,
    guard: w.choices.python,
    ...(signal ? { signal } : {}),
  });

// What a program says that it is, asked once.
function versionOf(command: string, sign: RegExp): () => Promise<string> {
  let asked: Promise<string> | undefined;
  const read = async () => sign.exec((await promisify(execFile)(command, ['--version'])).stdout)?.[1] ?? '';
  return () => {
    asked ??= read().catch(() => '');
    return asked;
  };
}

export function servicePart(w: Wiring, name: string): Part {
  const modules = w.processes[name] ?? [];
  const env = serviceEnvironment(w, name);
  const telemetry = env.OTEL_EXPORTER_OTLP_ENDPOINT ? ['--import', './services/platform/telemetry.ts'] : [];
  return {
    name,
    what: `the services ${name} (${modules.join(', ')})`,
    command: w.choices.node,
    args: [...telemetry, 'services/main.ts', `--target=${modules.join(',')}`],
    env,
    address: grpcOf(w, name),
    async ready() {
      await httpReady(`http://${adminOf(w, name)}/readyz`);
      return { version: `Node ${process.version}` };
    },
    stopSeconds: 20,
  };
}

// What an automation server tells on its admin port.
interface Readiness {
  ready: boolean;
  checks: { sandbox: string; session: string; registration: string };
  sandbox: { tier: number; minimumTier: number; limits: string[] };
}

export async function automationReadiness(w: Wiring, name: string): Promise<Readiness> {
  const url = `http://${adminOf(w, name)}/readyz`;
  const answer = await fetch(url, { signal: AbortSignal.timeout(2000) }).catch((error: Error & { cause?: Error }) => {
    throw new Error(`${url}: ${error.cause?.message || error.message}`);
  });
  return (await answer.json()) as Readiness;
}

// On one machine what accepts and watches work goes before what does it.
const AUTOMATION_NICE = 5;

export function automationPart(w: Wiring, name: string): Part {
  const version = versionOf(w.choices.python, /Python (\S+)/);
  return {
    name,
    what: `the ${name} server`,
    command: w.choices.python,
    args: ['-m', 'millrace_automation'],
    env: automationEnvironment(w, name),
    nice: AUTOMATION_NICE,
    address: grpcOf(w, name),
    // A server whose sandbox is too weak runs all the same: executions wait and say why.
    async ready() {
      const { ready, checks, sandbox } = await automationReadiness(w, name);
      if (!ready && checks.sandbox === 'ok') throw new Error(JSON.stringify(checks));
      const tier = `tier ${sandbox.tier}${sandbox.limits.length > 0 ? `: ${sandbox.limits.join(', ')}` : ''}`;
      return {
        version: `Python ${await version()}`,
        note: checks.sandbox === 'ok' ? tier : `NOT USABLE, executions will wait: ${checks.sandbox}`,
      };
    },
    stopSeconds: 45,
  };
}

export function builderPart(w: Wiring): Part {
  return {
    name: BUILDER,
    what: 'the builder of environments',
    command: w.choices.python,
    args: ['-m', 'millrace_automation.builder'],
    env: builderEnvironment(w),
    // It waits for the services by itself: nobody needs it to be up.
    async ready() {
      await httpReady(`http://${adminOf(w, BUILDER)}/livez`);
      return {};
    },
    stopSeconds: 10,
  };
}

export function edgePart(w: Wiring, log: string): Part {
  const folder = join(w.layout.run, 'edge');
  const env = edgeEnvironment(w);
  const version = versionOf(w.choices.envoy, /\/(\d+\.\d+\.\d+)/);
  return {
    name: 'edge',
    what: 'the edge (Envoy)',
    command: w.choices.envoy,
    args: ['-c', join(folder, 'envoy.json'), ...ENVOY_FLAGS],
    env,
    address: w.edgeAddress,
    prepare: () =>
      runOnce({
        what: "making the edge's configuration",
        command: w.choices.node,
        args: ['envoy/generate.ts', `--out=${folder}`],
        env,
        log,
        guard: w.choices.python,
      }),
    async ready() {
      await httpReady(`http://${reachable(w.edgeAddress)}/health`);
      return { version: `Envoy ${await version()}` };
    },
    stopSeconds: 10,
  };
}

// The areas that do not serve, as the edge tells.
export async function edgeHealth(w: Wiring): Promise<string[]> {
  const { areas } = JSON.parse(await httpReady(`http://${reachable(w.edgeAddress)}/health`)) as { areas: Record<string, string> };
  return Object.keys(areas).filter((area) => areas[area] !== 'SERVING');
}

// Where this machine reaches what listens on every address.
const reachable = (address: string): string => address.replace(/^(0\.0\.0\.0|\[::\]):/, '127.0.0.1:');
