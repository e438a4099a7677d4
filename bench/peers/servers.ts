// Servers, workers and clients of a contender: each ends with this process, however that ends, and writes a log to build/peers/logs.
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { REPOSITORY } from '../../deploy/local/layout.ts';
import { freePort } from '../../deploy/local/ports.ts';
import { supervise } from '../../deploy/local/supervise.ts';
import { HOME, type Program, redis } from './install.ts';

export interface Server {
  port: number;
  stop(): Promise<void>;
}
interface Starting extends Program {
  name: string;
  args: readonly string[];
  port?: number; // ready when it listens there; without one, at once
}

const GUARD = join(REPOSITORY, '.venv/bin/python');
const LOGS = join(HOME, 'logs');
const PROBE_MS = 1000;

const plain = (env: Record<string, string>): Record<string, string> => ({ ...(process.env as Record<string, string>), ...env });

export async function start({ name, command, args, env, port }: Starting): Promise<Server> {
  mkdirSync(LOGS, { recursive: true });
  const part = {
    ...{ name, what: name, command, args, env: plain(env), stopSeconds: 10 },
    ready: () => (port === undefined ? Promise.resolve({}) : listens(port).then(() => ({}))),
  };
  rmSync(join(LOGS, `${name}.log`), { force: true }); // of the last run
  const server = supervise(part, { guard: GUARD, log: join(LOGS, `${name}.log`), say: () => undefined });
  await server.start();
  return { port: port ?? 0, stop: () => server.stop() };
}

function listens(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: PROBE_MS });
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
    socket.once('timeout', () => socket.destroy(new Error('it does not listen yet')));
    socket.once('error', reject);
  });
}

export const somePort = (): Promise<number> => freePort();

// An empty folder for a server's data.
export function empty(name: string): string {
  const folder = join(HOME, 'data', name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return folder;
}

// `fsync`: an answered command is on the disk.
export async function startRedis(fsync: boolean): Promise<Server> {
  const { command, env } = await redis();
  const port = await somePort();
  const durable = fsync ? ['--appendonly', 'yes', '--appendfsync', 'always'] : [];
  const args = ['--bind', '127.0.0.1', '--port', String(port), '--dir', empty('redis'), '--daemonize', 'no', ...durable];
  return start({ name: 'redis', command, args, env, port });
}

// A client of its own process that answers each line of JSON by one.
export interface Asked {
  ask<T>(request: Record<string, unknown>, seconds?: number): Promise<T>;
  close(): Promise<void>;
}

export function startClient({ name, command, args, env }: Starting): Asked {
  const log = openSync(join(LOGS, `${name}.log`), 'a');
  const child = spawn(GUARD, ['-I', '-S', join(REPOSITORY, 'deploy/local/guard.py'), String(process.pid), command, ...args], {
    cwd: import.meta.dirname,
    env: plain(env),
    stdio: ['pipe', 'pipe', log],
  });
  closeSync(log);
  const { stdin, stdout } = child;
  if (!stdin || !stdout) throw new Error('a client has no pipes');
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`its client ended (${signal ?? code}), see ${join(LOGS, `${name}.log`)}`)));
  });
  ended.catch(() => undefined);
  stdin.on('error', () => undefined); // told by its end
  const answers = createInterface(stdout)[Symbol.asyncIterator]();
  return {
    async ask<T>(request: Record<string, unknown>, seconds = 300) {
      stdin.write(`${JSON.stringify(request)}\n`);
      const late = Promise.withResolvers<never>();
      const timer = setTimeout(() => late.reject(new Error(`${request.op} took more than ${seconds} s`)), seconds * 1000);
      try {
        const { value } = await Promise.race([answers.next(), ended, late.promise]);
        if (value === undefined) return await ended;
        const { error, answer } = JSON.parse(value) as { error?: string; answer: T };
        if (error) throw new Error(error);
        return answer;
      } finally {
        clearTimeout(timer);
      }
    },
    async close() {
      child.kill('SIGKILL');
      await ended.catch(() => undefined);
    },
  };
}

// Stops what was started, the last first.
export async function stopAll(started: readonly { stop(): Promise<void> }[]): Promise<void> {
  for (const one of [...started].reverse()) await one.stop();
}
