// `make migrate` and `make rollback`: on the servers that the environment names, else on those of the running stack.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask } from './control.ts';
import type { Env } from './environment.ts';
import { StartFault } from './faults.ts';
import { type Layout, REPOSITORY } from './layout.ts';

const fileOf = (layout: Layout): string => join(layout.run, 'environment.json');

// What programs need that join the stack. Holds the database's password.
export const keepEnvironment = (layout: Layout, env: Env): void =>
  writeFileSync(fileOf(layout), JSON.stringify(env, null, 2), { mode: 0o600 });

export async function migrateBy(layout: Layout, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const isRunning = (await ask(layout.root))?.isReady;
  if (!isRunning && !env.MILLRACE_DATABASE_URL)
    throw new StartFault('no stack runs, and MILLRACE_DATABASE_URL is not set', 'run `make up`, which migrates too, or set it');
  const stack = isRunning ? (JSON.parse(readFileSync(fileOf(layout), 'utf8')) as Env) : {};
  const child = spawn(process.execPath, ['services/migrate.ts', ...args], {
    cwd: REPOSITORY,
    env: { ...env, ...stack },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}
