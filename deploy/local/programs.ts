// The parts that are ours: processes of services, automation servers, and the edge. Also the commands that run once.
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import {
  adminOf,
  automationEnvironment,
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

export function servicePart(w: Wiring, name: string): Part {
  const modules = w.processes[name] ?? [];
  const telemetry = w.outer.OTEL_EXPORTER_OTLP_ENDPOINT ? ['--import', './services/platform/telemetry.ts'] : [];
  return {
    name,
    what: `the services ${name} (${modules.join(', ')})`,
    command: w.choices.node,
    args: [...telemetry, 'services/main.ts', `--target=${modules.join(',')}`],
    env: serviceEnvironment(w, name),
    address: grpcOf(w, name),
    async ready() {
      await httpReady(`http://${adminOf(w, name)}/readyz`);
      return { version: `Node ${process.version}` };
    },
    startSeconds: 60,
    stopSeconds: 20,
  };
}

export function automationPart(w: Wiring, name: string): Part {
  return {
    name,
    what: `the automation server ${name}`,
    command: w.choices.python,
    args: ['-m', 'millrace_automation'],
    env: automationEnvironment(w, name),
    address: grpcOf(w, name),
    async ready() {
      const body = await httpReady(`http://${adminOf(w, name)}/readyz`);
      return { note: body };
    },
    startSeconds: 60,
    stopSeconds: 45,
  };
}

export function edgePart(w: Wiring, log: string): Part {
  const folder = join(w.layout.run, 'envoy');
  const env = edgeEnvironment(w);
  return {
    name: 'edge',
    what: 'the edge (Envoy)',
    command: w.choices.envoy,
    args: ['-c', join(folder, 'envoy.json'), '--reject-unknown-dynamic-fields', '--concurrency', '1', '--disable-hot-restart'],
    env,
    address: w.edgeAddress,
    prepare: () =>
      runOnce({
        what: "the generation of the edge's configuration",
        command: w.choices.node,
        args: ['envoy/generate.ts', folder],
        env,
        log,
        guard: w.choices.python,
      }),
    async ready() {
      await httpReady(`http://${w.edgeAddress}/health`);
      return {};
    },
    startSeconds: 30,
    stopSeconds: 10,
  };
}
