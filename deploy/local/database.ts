// MariaDB in a private data folder, for loopback only.
import { spawn } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { type Outer, plainEnvironment } from './environment.ts';
import { StartFault, wayOut } from './faults.ts';
import { fitsSocket } from './layout.ts';
import { lastLines, sizeOf } from './log-file.ts';
import type { Part } from './part.ts';
import { databaseReady } from './ready.ts';
import { needRoom } from './room.ts';

interface Options {
  folder: string; // <data>/mysql
  initFile: string; // made here, holds the password
  log: string;
  port: number;
  password: string;
  given: string | undefined; // MILLRACE_MARIADBD
  outer: Outer;
}

const USER = 'millrace';
const WITHOUT_PATH = ['/usr/sbin', '/usr/local/sbin', '/usr/libexec', '/usr/local/bin', '/usr/bin'];
const NONE = `install it (\`apt-get install mariadb-server-core mariadb-client-core\`; as root, make does it), or set MILLRACE_DATABASE_URL=mysql://user:password@host:3306/ to use a server that runs`;

export function findProgram(names: readonly string[], folders: readonly string[]): string | undefined {
  for (const folder of folders) {
    for (const name of names) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // not here
      }
    }
  }
  return undefined;
}

export function findMariadbd(given: string | undefined, path = process.env.PATH ?? ''): string {
  if (given) {
    if (!existsSync(given)) throw new StartFault(`MILLRACE_MARIADBD names no file: ${given}`, 'give the path of mariadbd, or unset it');
    return given;
  }
  const found = findProgram(['mariadbd'], [...path.split(delimiter), ...WITHOUT_PATH]);
  if (!found) throw new StartFault('there is no database server (mariadbd) on this machine', NONE);
  return found;
}

const SOCKET = 'mysql.sock';

// By its socket where the data folder is given and its path is short enough: a round trip takes less than by TCP.
export function databaseUrl(port: number, password: string, folder?: string): string {
  const path = folder && join(folder, SOCKET);
  const bySocket = path && fitsSocket(path) ? `?${new URLSearchParams({ socketPath: path })}` : '';
  return `mysql://${USER}:${encodeURIComponent(password)}@127.0.0.1:${port}/${bySocket}`;
}

// A sixteenth of the machine's memory, 256 MiB to 1 GiB: the indexes of a long history stay in it. What is not used yet takes none.
export const poolMiB = (bytes: number): number => Math.min(1024, Math.max(256, Math.floor(bytes / 2 ** 24)));

export function databasePart({ folder, initFile, log, port, password, given, outer }: Options): Part {
  const command = findMariadbd(given);
  const temporary = `${folder}.tmp`; // its own: a server that starts removes the temporary tables of whoever shares that folder
  const env = { ...plainEnvironment(outer), TMPDIR: temporary };
  const asRoot = process.getuid?.() === 0 ? ['--user=root'] : [];
  return {
    name: 'database',
    what: 'the database (MariaDB)',
    command,
    args: [
      '--no-defaults',
      ...asRoot,
      `--datadir=${folder}`,
      `--socket=${SOCKET}`, // below the data folder: a socket's whole path may have 107 bytes only
      '--pid-file=mysql.pid',
      `--port=${port}`,
      '--bind-address=127.0.0.1',
      '--skip-name-resolve',
      `--init-file=${initFile}`,
      '--character-set-server=utf8mb4',
      '--default-time-zone=+00:00',
      '--max-connections=500',
      '--max-allowed-packet=64M',
      `--innodb-buffer-pool-size=${poolMiB(totalmem())}M`,
      '--innodb-flush-log-at-trx-commit=1', // an answered call is on the disk
      '--performance-schema=off',
      '--skip-log-bin',
    ],
    env,
    address: `127.0.0.1:${port}`,
    async prepare() {
      needRoom(dirname(folder), 'the database');
      mkdirSync(temporary, { recursive: true, mode: 0o700 });
      await initialise({ folder, command, asRoot, log, env });
      writeFileSync(initFile, accountSql(password), { mode: 0o600 });
    },
    ready: async () => ({ version: `MariaDB ${(await databaseReady(databaseUrl(port, password))).split('-')[0]}` }),
    stopSeconds: 60,
  };
}

// Set at each start, so that a changed secrets folder cannot lock anybody out. Other accounts need the socket, which is private.
const accountSql = (password: string): string =>
  ['127.0.0.1', 'localhost'] // by TCP and by the socket
    .flatMap((host) => [
      `CREATE USER IF NOT EXISTS '${USER}'@'${host}';`,
      `ALTER USER '${USER}'@'${host}' IDENTIFIED BY '${password}';`,
      `GRANT ALL PRIVILEGES ON *.* TO '${USER}'@'${host}' WITH GRANT OPTION;\n`,
    ])
    .join('\n');

interface Initialising {
  folder: string;
  command: string;
  asRoot: readonly string[];
  log: string;
  env: Record<string, string>;
}

// Fills a new data folder. One that was not completed is made again: the mark is written last. The program is given a second try: it
// was seen to fail once in a while.
async function initialise({ folder, command, asRoot, log, env }: Initialising): Promise<void> {
  const mark = join(folder, 'initialised');
  if (existsSync(mark)) return;
  const script = findProgram(
    ['mariadb-install-db', 'mysql_install_db'],
    [dirname(command), join(dirname(command), '../bin'), join(dirname(command), '../scripts'), '/usr/bin', '/usr/local/bin'],
  );
  if (!script) throw new StartFault('mariadb-install-db is missing beside mariadbd', NONE);
  const tree = dirname(dirname(command));
  const basedir = tree === '/usr' || tree === '/' ? [] : [`--basedir=${tree}`];
  const words = ['--no-defaults', ...basedir, ...asRoot, `--datadir=${folder}`, '--skip-test-db', '--skip-name-resolve'];
  const from = sizeOf(log);
  const fill = () => {
    rmSync(folder, { recursive: true, force: true });
    return run(script, words, log, env);
  };
  const how = (await fill()) && (await fill());
  if (how) {
    const told = lastLines(log, from, 200);
    const errors = told.filter((line) => /\bERROR\b/.test(line)); // what follows them is general advice
    const lines = (errors.length > 0 ? errors : told).slice(-10);
    throw new StartFault(`the data folder of the database could not be made (${how})`, wayOut(told, `read ${log}`), lines);
  }
  writeFileSync(mark, '');
}

// Undefined when it ended well, else how it ended.
function run(program: string, words: readonly string[], log: string, env: Record<string, string>): Promise<string | undefined> {
  const file = openSync(log, 'a', 0o600);
  const child = spawn(program, words, { env, stdio: ['ignore', file, file] });
  closeSync(file);
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(code === 0 ? undefined : `ended with ${signal ?? code}`));
  });
}
