// The command line of the launcher: `node deploy/local/main.ts <command>`. The Makefile's targets call it.
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ask } from './control.ts';
import { type Message, serve } from './daemon.ts';
import { doctor } from './doctor.ts';
import { readChoices } from './environment.ts';
import { StartFault, tellFault } from './faults.ts';
import { layoutOf, makeFolders, REPOSITORY } from './layout.ts';
import { follow } from './logs.ts';
import { migrateBy } from './migrations.ts';
import { isAlive } from './process-table.ts';
import { reset } from './reset.ts';
import { table } from './status.ts';
import { token } from './token.ts';

const LATEST_STOP_MS = 150_000;

const layout = () => {
  const at = layoutOf(readChoices().home);
  makeFolders(at);
  return at;
};

async function up({ FOREGROUND }: NodeJS.ProcessEnv): Promise<number> {
  const { root, logs } = layout();
  if (await ask(root)) return joinOther(root);
  if (FOREGROUND) return serve(print);
  const log = openSync(join(logs, 'launcher.log'), 'a', 0o600);
  const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), 'serve'], {
    cwd: REPOSITORY,
    detached: true,
    stdio: ['ignore', log, log, 'ipc'],
  });
  closeSync(log);
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => child.kill('SIGTERM'));
  return new Promise((resolve) => {
    child.on('message', (message: Message) => {
      if ('other' in message) return resolve(joinOther(root));
      print(message);
      if (!('banner' in message)) return;
      child.disconnect();
      child.unref();
      resolve(0);
    });
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

// Another launcher has the data folder: it is waited for, if it is still starting, and nothing is changed.
async function joinOther(root: string): Promise<number> {
  for (let isFirst = true; ; isFirst = false) {
    const running = await ask(root);
    if (!running)
      throw new StartFault('the launcher that was starting has given up', 'read `make logs PART=launcher`, or run `make up` again');
    if (running.isReady) {
      console.log(`${running.banner}\nIt was running already (launcher ${running.pid}); nothing changed.`);
      return 0;
    }
    if (isFirst) console.log(`it is being started already (launcher ${running.pid}): waiting for it`);
    await sleep(200);
  }
}

function print(message: Message): void {
  if ('line' in message) console.log(message.line);
  else if ('banner' in message) console.log(message.banner);
  else if ('fault' in message) console.error(message.fault);
  else console.error('another launcher runs already: see `make status`');
}

// In the background everything is also kept in the launcher's log, with the time.
function background(): Promise<number> {
  return serve((message) => {
    print('line' in message ? { line: `${new Date().toISOString()} ${message.line}` } : message);
    if (process.connected) process.send?.(message, () => undefined); // whoever started it may have gone
  });
}

async function down(): Promise<number> {
  const { root } = layout();
  const running = await ask(root);
  if (!running) {
    console.log('Nothing is running.');
    return 0;
  }
  process.kill(running.pid, 'SIGTERM');
  console.log('stopping in order');
  const end = Date.now() + LATEST_STOP_MS;
  while (isAlive(running.pid)) {
    if (Date.now() > end) {
      console.error('It does not stop: killed.');
      process.kill(running.pid, 'SIGKILL'); // the kernel kills the parts with it
      return 1;
    }
    await sleep(50);
  }
  console.log('Stopped.');
  return 0;
}

async function status(): Promise<number> {
  const report = await ask(layout().root);
  console.log(report ? table(report) : 'Nothing is running. Start with: make up');
  return 0;
}

const COMMANDS: Record<string, (env: NodeJS.ProcessEnv) => Promise<number>> = {
  up,
  serve: background,
  down,
  status,
  logs: (env) => follow(layout(), env.PART),
  reset: (env) => reset(layout(), env, down),
  token: (env) => token(layout(), env.SERVICE ?? process.argv[3], env.AUD ?? process.argv[4]),
  migrate: (env) => migrateBy(layout(), ['up'], env),
  rollback: (env) => migrateBy(layout(), ['down', env.area ?? ''], env),
  doctor: () => doctor(readChoices()),
};

const command = COMMANDS[process.argv[2] ?? ''];
if (!command) {
  console.error(`say one of: ${Object.keys(COMMANDS).join(', ')}`);
  process.exit(2);
}
command(process.env).then(
  (code) => process.exit(code),
  (error) => {
    console.error(tellFault(error));
    process.exit(1);
  },
);
