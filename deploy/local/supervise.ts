// Keeps one part running: starts it, sees that it is ready, starts it again with growing pauses when it dies, stops it.
//
//   stopped -> starting -> ready -> stopping -> stopped
//                 ^          |
//                 +- restarting (it died, or was ended because nothing else mends it; a pause of 0.25 s, doubled up to 15 s, from the start again
//                    after a minute of life)
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { StartFault, wayOut } from './faults.ts';
import { REPOSITORY } from './layout.ts';
import { lastLines, sizeOf } from './log-file.ts';
import { type Part, type Ready, START_SECONDS, type State } from './part.ts';

export interface Supervised {
  part: Part;
  start(signal?: AbortSignal): Promise<Ready>; // resolves when ready, throws a StartFault
  stop(): Promise<void>;
  signal(name: NodeJS.Signals): void;
  kill(): Promise<void>; // by SIGKILL; resolves when it has ended
  restart(): Promise<Ready>; // stops in order and starts again
  untilReady(): Promise<Ready>; // looks now: after a kill, or when something that it needs was away
  pid(): number | undefined;
  status(): Status;
  complaint(): Promise<string>; // what is wrong with a part that runs; empty when nothing is
}
export interface Status {
  state: State;
  pid: number | undefined;
  restarts: number;
  since: number; // when the state began, in milliseconds since 1970
  ready: Ready;
}
interface Options {
  guard: string; // the Python that runs guard.py
  log: string;
  say: (line: string) => void;
  lookMs?: number; // between two looks whether it is broken
}

const GUARD = join(import.meta.dirname, 'guard.py');
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 15_000;
const STABLE_MS = 60_000;
const PROBE_MS = 3000;
const PROBE_EVERY_MS = 40;
const SAY_EVERY_MS = 5000;
const LOOK_MS = 5000;
const UNREADY_STOP_SECONDS = 10; // a database that has just begun to start loses the signal, and has nothing yet to put in order
const LAST_LINES = 15;

export function supervise(part: Part, { guard, log, say, lookMs = LOOK_MS }: Options): Supervised {
  let child: ChildProcess | undefined;
  let ended: Promise<string> = Promise.resolve('');
  let state: State = 'stopped';
  let since = Date.now();
  let restarts = 0;
  let pauseMs = FIRST_PAUSE_MS;
  let told: Ready = {};
  let logFrom = 0;
  let stopping = new AbortController();
  let keeping: Promise<void> = Promise.resolve();
  let stopped: Promise<void> | undefined = Promise.resolve();
  let changed = Promise.withResolvers<void>();

  function become(next: State): void {
    state = next;
    since = Date.now();
    changed.resolve();
    changed = Promise.withResolvers();
  }

  // A probe may hang with the part that it asks.
  const probe = (): Promise<Ready> =>
    Promise.race([
      part.ready(),
      sleep(PROBE_MS, undefined, { ref: false }).then(() => Promise.reject(new Error(`it does not answer within ${PROBE_MS / 1000} s`))),
    ]);

  async function run(stop: AbortSignal): Promise<void> {
    await part.prepare?.();
    stop.throwIfAborted();
    logFrom = sizeOf(log);
    const file = openSync(log, 'a', 0o600);
    const process_ = spawn(guard, ['-I', '-S', GUARD, String(process.pid), part.command, ...part.args], {
      cwd: REPOSITORY,
      env: part.env,
      stdio: ['ignore', file, file],
      detached: true, // out of the terminal's group: Ctrl-C reaches the launcher alone, which stops the parts in order
    });
    closeSync(file);
    if (part.nice && process_.pid) setPriority(process_.pid, part.nice);
    child = process_;
    ended = new Promise((resolve) => {
      process_.once('error', (error) => resolve(error.message));
      process_.once('exit', (code, by) => resolve(by ? `killed by ${by}` : `exit status ${code}`));
    });
    ended.then(() => {
      if (child === process_) child = undefined;
    });
  }

  // Resolves when the part is ready; throws when it ends or takes too long.
  async function becomeReady(): Promise<Ready> {
    const started = Date.now();
    const { startSeconds = START_SECONDS } = part;
    let end: string | undefined;
    ended.then((how) => {
      end = how;
    });
    for (let lastSaid = started, waiting = ''; ; ) {
      if (end !== undefined) throw fault(`${part.what} ended before it was ready (${end})`);
      if (Date.now() - started > startSeconds * 1000) {
        throw fault(`${part.what} was not ready within ${startSeconds} s${waiting && `: ${waiting}`}`);
      }
      const answer = await probe().catch((error: Error) => error);
      if (!(answer instanceof Error) && end === undefined) return answer;
      waiting = answer instanceof Error ? answer.message || (answer as NodeJS.ErrnoException).code || '' : '';
      if (Date.now() - lastSaid > SAY_EVERY_MS) {
        say(`waiting for ${part.what}: ${waiting}`);
        lastSaid = Date.now();
      }
      await Promise.race([sleep(PROBE_EVERY_MS), ended]);
    }
  }

  function fault(message: string): StartFault {
    const told = lastLines(log, logFrom, 3 * LAST_LINES);
    const lines = told.slice(-LAST_LINES);
    return new StartFault(message, wayOut(told, `read ${log}, mend what it says, then run \`make up\` again`), lines);
  }

  async function keep(): Promise<void> {
    const stop = stopping.signal;
    for (;;) {
      const how = await ended;
      if (stop.aborted) return;
      if (Date.now() - since > STABLE_MS) pauseMs = FIRST_PAUSE_MS;
      restarts += 1;
      become('restarting');
      say(`${part.name} ended (${how}): starts again in ${pauseMs / 1000} s`);
      await sleep(pauseMs, undefined, { signal: stop }).catch(() => undefined);
      if (stop.aborted) return;
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
      try {
        await run(stop);
        told = await becomeReady();
        if (stop.aborted) return;
        become('ready');
        say(`${part.name} is back (pid ${child?.pid})`);
      } catch (error) {
        if (stop.aborted) return;
        say((error as Error).message);
        child?.kill('SIGKILL');
      }
    }
  }

  // Ends what is alive but of no use until it is started again: `keep` does that.
  async function look(): Promise<void> {
    const stop = stopping.signal;
    while (!stop.aborted) {
      await sleep(lookMs, undefined, { signal: stop, ref: false }).catch(() => undefined);
      const one = child;
      if (state !== 'ready' || !one) continue;
      const why = await part.broken?.().catch(() => '');
      if (!why || stop.aborted || child !== one) continue;
      say(`${part.name} is ended, to start again: ${why}`);
      await end(one, part.stopSeconds);
    }
  }

  async function end(one: ChildProcess, seconds: number): Promise<void> {
    one.kill('SIGTERM');
    one.kill('SIGCONT'); // one that a test has paused could not end
    const timer = setTimeout(() => {
      say(`${part.name} did not stop within ${seconds} s: killed`);
      one.kill('SIGKILL');
    }, seconds * 1000);
    await ended;
    clearTimeout(timer);
  }

  async function start(): Promise<Ready> {
    stopping = new AbortController();
    stopped = undefined;
    pauseMs = FIRST_PAUSE_MS;
    become('starting');
    try {
      await run(stopping.signal);
      told = await becomeReady();
    } catch (error) {
      await stop();
      throw error;
    }
    become('ready');
    keeping = keep();
    if (part.broken) void look();
    return told;
  }

  // Called twice, it signals once: a second SIGTERM would end a program that is stopping in order.
  function stop(): Promise<void> {
    stopped ??= stopOnce();
    return stopped;
  }

  async function stopOnce(): Promise<void> {
    stopping.abort();
    const one = child;
    if (one) {
      const seconds = state === 'ready' ? part.stopSeconds : Math.min(part.stopSeconds, UNREADY_STOP_SECONDS);
      become('stopping');
      await end(one, seconds);
    }
    await keeping;
    become('stopped');
  }

  return {
    part,
    start,
    stop,
    signal: (name) => void child?.kill(name),
    async kill() {
      child?.kill('SIGKILL');
      await ended;
    },
    async restart() {
      await stop();
      return start();
    },
    async untilReady() {
      for (;;) {
        if (state === 'stopped' || state === 'stopping') throw new Error(`${part.name} is not running`);
        const answer = state === 'ready' && child ? await probe().catch(() => undefined) : undefined;
        if (answer) return answer;
        await Promise.race([changed.promise, sleep(PROBE_EVERY_MS)]);
      }
    },
    pid: () => child?.pid,
    complaint: async () =>
      state === 'ready'
        ? probe().then(
            () => '',
            (error: Error) => error.message,
          )
        : '',
    status: () => ({ state, pid: child?.pid, restarts, since, ready: told }),
  };
}
