// A whole stack on this machine: database, broker, services, automation servers and the edge, started in order and kept running.
// `make up` starts one below `.millrace`; tests start others beside it, each with its own ports, data and names.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { adminOf, areaUrls, BUILDER, clientEnvironment, type Env, type Outer, type Wiring } from './environment.ts';
import { StartFault } from './faults.ts';
import type { Layout } from './layout.ts';
import { rotate } from './log-file.ts';
import { migrate, settleOnDisk } from './programs.ts';
import { brokerReady, databaseReady } from './ready.ts';
import { settle } from './settle.ts';
import { type Status, type Supervised, supervise } from './supervise.ts';
import { partsOf, wire } from './wire.ts';

export interface StackOptions {
  parts?: readonly string[]; // database, broker, services (every process), a process's name, automation, edge; all by default
  dataDir?: string; // kept at the end; by default a new folder below build/stacks, removed at the end
  processes?: Record<string, readonly string[]>; // modules by process; api and dispatcher by default
  automations?: number; // automation servers: automation, automation-2, …; 1 by default
  settings?: Env; // of every part, such as MILLRACE_LOG_LEVEL or MILLRACE_EDGE_RATE_SCALE
  settingsOf?: Record<string, Env>; // of single parts, stronger still
  outer?: Outer; // the caller's environment; process.env by default
  edgeAddress?: string; // host:port; a free port on loopback by default
  publicUrl?: string;
  databasePrefix?: string; // of the schemas; `millrace` with a dataDir, else one of its own
  natsPrefix?: string;
  say?: (line: string) => void;
  signal?: AbortSignal; // ends a start that is under way
}
export interface Stack {
  env: Env; // for programs that join the stack
  urls: Urls;
  layout: Layout;
  wiring: Wiring;
  parts: readonly string[];
  address(part: string): string | undefined;
  status(part: string): Status;
  complaint(part: string): Promise<string>; // what is wrong with a part that runs; empty when nothing is
  pid(part: string): number | undefined;
  signal(part: string, name: NodeJS.Signals): void;
  kill(part: string): Promise<void>; // by SIGKILL; resolves when it has ended. It is started again
  ready(part: string): Promise<void>; // resolves when it is ready, again
  halt(part: string): Promise<void>; // stops it in order; it stays stopped
  restart(part: string): Promise<void>; // stops it in order if it runs, and starts it
  stop(): Promise<void>;
}
export interface Urls {
  base: string; // http://localhost:8000
  host: string; // localhost:8000
  services: string; // gRPC without the edge, host:port
  runner: string;
  admin: Record<string, string>; // by part
}

const ROTATE_EVERY_MS = 60_000;

export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const say = options.say ?? (() => undefined);
  const w = await wire(options);
  const groups = partsOf(w, options.parts);
  const logOf = (name: string) => join(w.layout.logs, `${name}.log`);
  const all = new Map(groups.flat().map((part) => [part.name, supervise(part, { guard: w.choices.python, log: logOf(part.name), say })]));
  const find = (name: string): Supervised => {
    const one = all.get(name);
    if (!one) throw new Error(`there is no part ${name} in this stack: ${[...all.keys()].join(', ')}`);
    return one;
  };
  const rotation = setInterval(() => {
    for (const name of all.keys()) rotate(logOf(name));
  }, ROTATE_EVERY_MS);
  rotation.unref();

  let hasStarted = false; // the logs of a start that failed are kept until the next one
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopping ??= stopInOrder(w, [...all.values()], say).finally(() => {
      clearInterval(rotation);
      if (options.dataDir === undefined && hasStarted) rmSync(w.layout.root, { recursive: true, force: true });
    });
    return stopping;
  };

  const onAbort = () => void stop();
  options.signal?.addEventListener('abort', onAbort);
  try {
    const [stores, programs] = groups;
    await startTogether(
      stores.map((part) => find(part.name)),
      say,
      options.signal,
    );
    if (programs.some((part) => part.name in w.processes)) {
      await checkGiven(w);
      say('bringing the schemas up to date');
      await migrate(w, logOf('migrate'), options.signal);
      await settleOnDisk(w, logOf('migrate'), options.signal);
    }
    await startTogether(
      programs.map((part) => find(part.name)),
      say,
      options.signal,
    );
    await settle(w, [...all.keys()], say, options.signal);
    hasStarted = true;
  } catch (error) {
    await stop();
    throw options.signal?.aborted ? new StartFault('the start was ended', 'run `make up` again') : error;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }

  return {
    env: clientEnvironment(w),
    urls: urlsOf(w, [...all.keys()]),
    layout: w.layout,
    wiring: w,
    parts: [...all.keys()],
    address: (name) => find(name).part.address,
    status: (name) => find(name).status(),
    complaint: (name) => find(name).complaint(),
    pid: (name) => find(name).pid(),
    signal: (name, signal) => find(name).signal(signal),
    kill: (name) => find(name).kill(),
    ready: async (name) => void (await find(name).untilReady()),
    halt: (name) => find(name).stop(),
    restart: async (name) => void (await find(name).restart()),
    stop,
  };
}

// The first that cannot start ends the start; the others are stopped by the caller.
async function startTogether(group: readonly Supervised[], say: (line: string) => void, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  if (group.length > 0) say(`starting ${group.map(({ part }) => part.what).join(', ')}`);
  await Promise.all(
    group.map(async (one) => {
      const began = performance.now();
      await one.start();
      say(`${one.part.name} is ready (${((performance.now() - began) / 1000).toFixed(1)} s)`);
    }),
  );
  signal?.throwIfAborted();
}

// The edge first. Then the automation servers, while dispatchers still take their results, then services, broker and database: nobody
// loses what it still needs.
async function stopInOrder(w: Wiring, all: readonly Supervised[], say: (line: string) => void): Promise<void> {
  const order: ((name: string) => boolean)[] = [
    (name) => name === 'edge' || name === BUILDER,
    (name) => w.automations.includes(name),
    (name) => name in w.processes,
    (name) => name === 'broker',
    (name) => name === 'database',
  ];
  for (const isNext of order) {
    const group = all.filter(({ part, status }) => isNext(part.name) && status().state !== 'stopped');
    if (group.length > 0) say(`stopping ${group.map(({ part }) => part.name).join(', ')}`);
    await Promise.all(group.map((one) => one.stop()));
  }
}

// Servers that the caller brings must answer before the services start.
async function checkGiven(w: Wiring): Promise<void> {
  const given: [string, string | undefined, (url: string) => Promise<string>][] = [
    ['MILLRACE_DATABASE_URL', w.choices.databaseUrl, databaseReady],
    ['MILLRACE_NATS_URL', w.choices.natsUrl, brokerReady],
  ];
  for (const [name, url, probe] of given) {
    if (!url) continue;
    await probe(url).catch((error: Error) => {
      throw new StartFault(
        `the server that ${name} names does not answer: ${error.message}`,
        `start it, mend ${name}, or unset it so that the launcher starts one`,
      );
    });
  }
}

const urlsOf = (w: Wiring, names: readonly string[]): Urls => {
  const areas = areaUrls(w);
  return {
    base: w.publicUrl,
    host: w.publicUrl.replace(/^https?:\/\//, ''),
    services: areas.MILLRACE_IDENTITY_URL ?? '',
    runner: areas.MILLRACE_RUNNER_URL ?? '',
    admin: Object.fromEntries(names.filter((name) => `${name}.admin` in w.ports).map((name) => [name, `http://${adminOf(w, name)}`])),
  };
};
