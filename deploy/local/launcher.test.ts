import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '@nats-io/transport-node';
import { expect } from 'chai';
import { createConnection } from 'mysql2/promise';
import { ask, type Report } from './control.ts';
import { isAlive, treeOf } from './process-table.ts';

const MAIN = join(import.meta.dirname, 'main.ts');

interface Ended {
  code: number | null;
  out: string;
}

describe('the launcher', function () {
  this.timeout(60_000);
  let home: string;
  before(() => {
    home = mkdtempSync(join(tmpdir(), 'millrace-launcher-'));
  });
  after(async () => {
    await run('down');
    rmSync(home, { recursive: true, force: true });
  });

  function begin(command: string, env: Record<string, string> = {}): { child: ChildProcess; end: Promise<Ended>; told: () => string } {
    const child = spawn(process.execPath, [MAIN, command], {
      env: { ...process.env, MILLRACE_HOME: home, MILLRACE_PARTS: 'database,broker', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    const keep = (text: string) => {
      out += text;
    };
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', keep);
    return { child, told: () => out, end: new Promise((resolve) => child.on('close', (code) => resolve({ code, out }))) };
  }
  const run = (command: string, env?: Record<string, string>): Promise<Ended> => begin(command, env).end;

  async function report(): Promise<Report> {
    const found = await ask(home);
    if (!found) throw new Error('nothing runs');
    return found;
  }
  const pidOf = ({ parts }: Report, name: string): number => parts.find((one) => one.name === name)?.pid ?? 0;

  async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
    for (const end = Date.now() + 20_000; !(await isSo()); await new Promise((resolve) => setTimeout(resolve, 20))) {
      if (Date.now() > end) throw new Error(`in vain: ${what}`);
    }
  }

  const portsOf = () =>
    (JSON.parse(readFileSync(join(home, 'state.json'), 'utf8')) as { ports: { database: number; broker: number } }).ports;
  function databaseUrl(): string {
    const password = readFileSync(join(home, 'secrets/database-password'), 'utf8').trim();
    return `mysql://millrace:${password}@127.0.0.1:${portsOf().database}/`;
  }
  async function query(sql: string): Promise<unknown> {
    const connection = await createConnection(databaseUrl());
    try {
      return (await connection.query(sql))[0];
    } finally {
      await connection.end();
    }
  }

  it('starts the stack in the background and says where everything is', async () => {
    const { code, out } = await run('up');
    expect(code, out).to.equal(0);
    expect(out)
      .to.match(/Millrace is running/)
      .and.match(/MariaDB 1\d\.\d+/)
      .and.match(/NATS 2\.\d+/)
      .and.match(/First login +admin@millrace\.local/);
    const { parts, isReady } = await report();
    expect(isReady).to.equal(true);
    expect(parts.map(({ name, state }) => `${name} ${state}`)).to.deep.equal(['database ready', 'broker ready']);
    expect(readFileSync(join(home, 'env'), 'utf8')).to.match(/^export HOST=localhost:\d+\nexport BASE=http:\/\/localhost:\d+\n/);
  });

  it('keeps secrets to their owner, and lets nobody into the database or the broker without a password', async () => {
    for (const name of readdirSync(join(home, 'secrets/services')))
      expect(statSync(join(home, 'secrets/services', name)).mode & 0o777).to.equal(0o600);
    for (const name of ['admin-password', 'identity-key-secret', 'database-password', 'broker-password'])
      expect(statSync(join(home, 'secrets', name)).mode & 0o777).to.equal(0o600);
    expect(statSync(join(home, 'secrets')).mode & 0o777).to.equal(0o700);
    const ports = portsOf();
    for (const user of ['root', 'millrace', '']) {
      const refused = await createConnection({ host: '127.0.0.1', port: ports.database, user }).catch((error: Error) => error);
      expect(refused, user).to.be.instanceOf(Error);
    }
    const servers = `127.0.0.1:${ports.broker}`;
    const pass = readFileSync(join(home, 'secrets/broker-password'), 'utf8').trim();
    expect(statSync(join(home, 'run/nats.conf')).mode & 0o777).to.equal(0o600);
    for (const login of [{}, { user: 'millrace', pass: 'wrong' }, { token: pass }])
      expect(await connect({ servers, ...login }).catch((error: Error) => error.message)).to.match(/authorization/i);
    await (await connect({ servers, user: 'millrace', pass })).close();
  });

  it('tells no password: in what it says, in its logs, in the arguments of its parts', async () => {
    const said = [(await run('up')).out, (await run('status')).out, (await run('doctor')).out];
    const logs = readdirSync(join(home, 'logs')).map((name) => readFileSync(join(home, 'logs', name), 'utf8'));
    const parts = (await report()).parts.map(({ pid }) => readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
    for (const name of ['database-password', 'broker-password']) {
      const password = readFileSync(join(home, 'secrets', name), 'utf8').trim();
      expect(password).to.have.length.above(20);
      for (const text of [...said, ...logs, ...parts]) expect(text).not.to.include(password);
    }
    const given = { MILLRACE_NATS_URL: 'nats://ann:s3cret@127.0.0.1:1', MILLRACE_PARTS: 'api', MILLRACE_HOME: join(home, 'other') };
    const { code, out } = await run('up', { ...given, MILLRACE_DATABASE_URL: databaseUrl() });
    expect(code).to.equal(1);
    expect(out)
      .to.match(/the server that MILLRACE_NATS_URL names does not answer/)
      .and.not.include('s3cret');
    rmSync(join(home, 'other'), { recursive: true });
  });

  it('says that it runs when it is started again, and changes nothing', async () => {
    const before = await report();
    const { code, out } = await run('up');
    expect(code).to.equal(0);
    expect(out)
      .to.match(/Millrace is running/)
      .and.match(/It was running already/);
    const after = await report();
    expect(after.pid).to.equal(before.pid);
    expect(after.parts.map(({ pid }) => pid)).to.deep.equal(before.parts.map(({ pid }) => pid));
  });

  it('starts a part that dies again, and shows it', async () => {
    const before = pidOf(await report(), 'broker');
    process.kill(before, 'SIGKILL');
    await until('a new broker', async () =>
      (await report()).parts.some(({ name, state, restarts }) => name === 'broker' && state === 'ready' && restarts === 1),
    );
    expect(pidOf(await report(), 'broker')).to.not.equal(before);
    expect((await run('status')).out).to.match(/broker +ready +\d+ +127\.0\.0\.1:\d+ +1 +\d+ s +\d+ MiB/);
    expect(readFileSync(join(home, 'logs/launcher.log'), 'utf8')).to.match(/broker ended \(killed by SIGKILL\): starts again/);
  });

  it('shows a part that runs and is not well, with what it says', async () => {
    const before = pidOf(await report(), 'broker');
    process.kill(before, 'SIGSTOP');
    const { out } = await run('status');
    process.kill(before, 'SIGCONT');
    expect(out)
      .to.match(/broker +unwell +\d+/)
      .and.match(/\nbroker: 127\.0\.0\.1:\d+ does not greet\n/);
    expect(out).to.match(/database +ready/);
  });

  it('leaves no process when it is killed, and starts again with the same data', async () => {
    await query('CREATE DATABASE kept');
    const tree = treeOf((await report()).pid);
    expect(tree.length).to.be.at.least(3);
    process.kill(tree[0] ?? 0, 'SIGKILL');
    await until('all have ended', () => !tree.some(isAlive));
    expect((await run('status')).out).to.match(/Nothing is running/);
    const { code, out } = await run('up');
    expect(code, out).to.equal(0);
    expect(await query("SHOW DATABASES LIKE 'kept'")).to.have.length(1);
  });

  it('stops in order and leaves no process', async () => {
    const tree = treeOf((await report()).pid);
    const { code, out } = await run('down');
    expect([code, tree.filter(isAlive)], out).to.deep.equal([0, []]);
    expect(readFileSync(join(home, 'logs/launcher.log'), 'utf8')).to.match(/stopping broker\n.*stopping database\n.*stopped\n$/);
    expect((await run('down')).out).to.match(/Nothing is running/);
  });

  it('is one launcher, however many are started at once', async () => {
    const ends = await Promise.all([run('up'), run('up'), run('up')]);
    expect(ends.map(({ code }) => code)).to.deep.equal([0, 0, 0]);
    expect(ends.filter(({ out }) => /Millrace is running/.test(out))).to.have.length(3);
    expect(ends.filter(({ out }) => /was running already/.test(out))).to.have.length(2);
    const { parts } = await report();
    expect(parts.map(({ state }) => state)).to.deep.equal(['ready', 'ready']);
    await run('down');
  });

  it('stays in the foreground when asked, and stops in order on Ctrl-C', async () => {
    const { child, end, told } = begin('up', { FOREGROUND: '1' });
    await until('it is up', () => told().includes('Millrace is running'));
    const tree = treeOf(child.pid ?? 0);
    expect(tree.length).to.be.at.least(3);
    child.kill('SIGINT');
    const { code, out } = await end;
    expect(code, out).to.equal(0);
    expect(out).to.match(/stopping broker\nstopping database\nstopped\n$/);
    expect(tree.filter(isAlive)).to.deep.equal([]);
  });

  it('that is interrupted while it starts leaves no process', async () => {
    const { child, end, told } = begin('up');
    await until('parts start', () => told().includes('starting the database'));
    const { pid } = await report();
    await until('a part runs', () => treeOf(pid).length > 1);
    const tree = treeOf(pid);
    child.kill('SIGINT');
    const { code } = await end;
    expect(code).to.equal(1);
    await until('all have ended', () => !tree.some(isAlive));
    expect(await ask(home)).to.equal(undefined);
  });

  it('tells the way out when the public port that was asked for is taken', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const address = other.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const { code, out } = await run('up', { MILLRACE_EDGE_ADDRESS: `127.0.0.1:${port}` });
    other.close();
    expect(code).to.equal(1);
    expect(out).to.match(new RegExp(`port ${port} \\(MILLRACE_EDGE_ADDRESS\\) is taken\nThe way out: `));
  });

  it('ends with the last lines of a part that cannot start, and leaves no process', async () => {
    const { code, out } = await run('up', { MILLRACE_NATS_SERVER: '/no/nats-server' });
    expect(code).to.equal(1);
    expect(out)
      .to.match(/the broker \(NATS\) ended before it was ready/)
      .and.match(/\| \/no\/nats-server: No such file/)
      .and.match(/The way out: .*make doctor/);
    expect(await ask(home)).to.equal(undefined);
  });

  it('tells the way out when there is no database server', async () => {
    const { code, out } = await run('up', { MILLRACE_MARIADBD: '/no/mariadbd' });
    expect(code).to.equal(1);
    expect(out).to.match(/MILLRACE_MARIADBD names no file: \/no\/mariadbd\nThe way out: /);
  });

  it('deletes the data only when that is confirmed', async () => {
    expect((await run('reset')).out).to.match(/make reset CONFIRM=1/);
    expect(readdirSync(home)).to.include('data');
    const { code, out } = await run('reset', { CONFIRM: '1' });
    expect(code, out).to.equal(0);
    expect(readdirSync(home)).to.deep.equal([]);
  });
});
