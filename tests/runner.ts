// An automation server for tests: the real one, in a process of its own, that accepts the services of a world.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../deploy/local/ports.ts';
import { until, writeServiceKeys } from './world.ts';

export interface Runner {
  env: Record<string, string>; // for the world that calls it
  stop(): Promise<void>;
}

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));
const START_MS = 30_000;

export async function startRunner(settings: Record<string, string> = {}): Promise<Runner> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-keys-'));
  writeServiceKeys(folder);
  const keys = { MILLRACE_SERVICE_KEYS: folder, MILLRACE_SERVICE_JWKS: join(folder, 'jwks.json') };
  const [address, admin] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const child = spawn(join(REPOSITORY, '.venv/bin/python'), ['-m', 'millrace_automation'], {
    cwd: REPOSITORY,
    env: {
      ...keys,
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      PYTHONPATH: join(REPOSITORY, 'automation'),
      MILLRACE_AUTOMATION_ADDRESS: address,
      MILLRACE_AUTOMATION_ADMIN_ADDRESS: admin,
      MILLRACE_AUTOMATION_PREPARED: '1',
      MILLRACE_AUTOMATION_DRAIN_SECONDS: '1',
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text) => {
      said = (said + text).slice(-4000);
    });
  }
  const isReady = async () => {
    if (child.exitCode !== null) throw new Error(`the automation server ended: ${said}`);
    return (await fetch(`http://${admin}/readyz`).catch(() => undefined))?.ok;
  };
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true });
  };
  await until('the automation server to be ready', isReady, START_MS).catch(async (error) => {
    await stop();
    throw error;
  });
  return { env: { ...keys, MILLRACE_RUNNER_URL: address }, stop };
}
