// What the tests of the dispatcher share: a world with executions, dispatchers in this process or as processes that can be killed, and real
// automation servers.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { type Execution, Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionServiceService, type TailExecutionLogsResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import { fromBytes, newId, toBytes } from '#platform/id.ts';
import type { Module } from '#platform/module.ts';
import { type Person, startWorld, until, type World } from '../../../tests/world.ts';
import { publish } from '../fixture.test.ts';
import { module as executions } from '../module.ts';
import { module as dispatcher } from './module.ts';

export const ROOT = join(import.meta.dirname, '../../..');
export const modules: readonly Module[] = [executions, dispatcher];

// Leases short enough to wait for.
export const SHORT = {
  MILLRACE_DISPATCHER_LEASE_MS: '1500',
  MILLRACE_DISPATCHER_SERVER_LEASE_MS: '3000',
  MILLRACE_DISPATCHER_TICK_MS: '250',
};

export interface Process {
  child: ChildProcess;
  output(): string;
  signal(name: NodeJS.Signals): void;
  stop(): Promise<void>;
}
export interface Lab {
  world: World;
  person: Person;
  runner(env?: Record<string, string>): Promise<Process & { id: string }>;
  dispatcher(env?: Record<string, string>): Promise<Process>;
  publish(spec: Partial<AutomationSpec>): Promise<string>;
  start(automationId: string, execution?: Partial<Execution>): Promise<string>;
  get(id: string): Promise<Execution>;
  ended(id: string, patienceMs?: number): Promise<Execution>;
  logs(id: string): Promise<TailExecutionLogsResponse[]>;
  stopDispatchers(): Promise<void>; // those that are processes
  stop(): Promise<void>;
}

export async function startLab(
  options: { targets?: readonly string[]; env?: Record<string, string>; more?: readonly Module[] } = {},
): Promise<Lab> {
  const world = await startWorld({
    targets: options.targets ?? ['executions', 'dispatcher'],
    modules: [...modules, ...(options.more ?? [])],
    env: { ...SHORT, ...options.env },
  });
  const person = world.person();
  const client = world.as(person, ExecutionServiceService);
  const processes: Process[] = [];
  const dispatchers: Process[] = [];
  let scripts = 0;
  const lab: Lab = {
    world,
    person,
    async runner(env = {}) {
      const python = join(ROOT, '.venv/bin/python');
      const made = launch(python, ['-m', 'millrace_automation'], {
        ...world.env,
        PYTHONPATH: join(ROOT, 'automation'),
        MILLRACE_EXECUTIONS_URL: world.grpcAddress,
        MILLRACE_AUTOMATION_SLOTS: '8',
        MILLRACE_LOG_LEVEL: 'info',
        ...env,
      });
      processes.push(made);
      const before = new Set((await world.db('executions')('servers').select('id')).map(({ id }) => id.toString('hex')));
      const row = await until('the automation server to register', async () => {
        if (made.child.exitCode !== null) throw new Error(`the automation server ended: ${made.output()}`);
        return (await world.db('executions')('servers').select('id')).find(({ id }) => !before.has(id.toString('hex')));
      }, 30_000); // biome-ignore format: a probe
      return { ...made, id: fromBytes('server', row.id) };
    },
    async dispatcher(env = {}) {
      const made = launch(process.execPath, [join(import.meta.dirname, 'process.fixture.ts')], {
        ...world.env,
        MILLRACE_EXECUTIONS_URL: world.grpcAddress,
        ...env,
      });
      dispatchers.push(made);
      await until('the dispatcher to be ready', () => {
        if (made.child.exitCode !== null) throw new Error(`the dispatcher ended: ${made.output()}`);
        return made.output().includes('"ready"');
      }, 15_000); // biome-ignore format: a probe
      return made;
    },
    publish: (spec) =>
      publish(world, { workspace: person.workspace, specs: [spec as object], id: newId('automation'), version: ++scripts }),
    async start(automationId, execution = {}) {
      return (await client.createExecution({ execution: { ...EMPTY, ...execution, automationId }, requestId: '' })).id;
    },
    get: (id) => client.getExecution({ id }),
    ended: (id, patienceMs = 20_000) =>
      until(`${id} to end`, async () => {
        const found = await client.getExecution({ id });
        return found.endTime ? found : undefined;
      }, patienceMs), // biome-ignore format: a probe
    async logs(id) {
      const frames: TailExecutionLogsResponse[] = [];
      for await (const frame of client.tailExecutionLogs({ id, cursor: '', follow: true })) if (!frame.keepAlive) frames.push(frame);
      return frames;
    },
    async stopDispatchers() {
      for (const one of dispatchers.splice(0)) await one.stop();
    },
    async stop() {
      for (const one of [...dispatchers, ...processes]) await one.stop();
      await world.stop();
    },
  };
  return lab;
}

const EMPTY = {
  ...({} as Execution),
  labels: {},
  id: '',
  revision: 0,
  state: Execution_State.STATE_UNSPECIFIED,
  attemptCount: 0,
  creatorId: '',
  waitingReason: '',
  version: 0,
};

function launch(command: string, args: string[], env: Record<string, string>): Process {
  const child = spawn(command, args, { cwd: ROOT, env: { PATH: process.env.PATH ?? '', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const parts: string[] = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => parts.push(String(data)));
  const isOver = () => child.exitCode !== null || child.signalCode !== null;
  return {
    child,
    output: () => parts.join(''),
    signal: (name) => void child.kill(name),
    async stop() {
      if (isOver()) return;
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      if (!isOver()) await once(child, 'exit');
      clearTimeout(timer);
    },
  };
}

export const stateOf = ({ state }: Execution): string => Object.entries(Execution_State).find(([, value]) => value === state)?.[0] ?? '';

export const attempts = (world: World, id: string) =>
  world
    .db('executions')('attempts')
    .where({ execution: toBytes('execution', id) })
    .orderBy('number');

export const runningOf = (world: World, id: string) =>
  world
    .db('executions')('running')
    .where({ execution: toBytes('execution', id) })
    .first();
