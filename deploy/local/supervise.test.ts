import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { readChoices } from './environment.ts';
import { StartFault } from './faults.ts';
import type { Part } from './part.ts';
import { isAlive } from './process-table.ts';
import { type Supervised, supervise } from './supervise.ts';

const { python } = readChoices();

describe('a supervised part', () => {
  let folder: string;
  let said: string[];
  let started: Supervised[];
  let others: ChildProcess[];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-supervise-'));
    said = [];
    started = [];
    others = [];
  });
  afterEach(async () => {
    await Promise.all(started.map((one) => one.stop()));
    for (const one of others) one.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  // A shell script that is ready once it has written its mark.
  function part(script: string, more: Partial<Part> = {}): Supervised {
    const mark = join(folder, 'mark');
    const one = supervise(
      {
        name: 'thing',
        what: 'the thing',
        command: 'sh',
        args: ['-c', `rm -f ${mark}; ${script}`],
        env: { PATH: process.env.PATH ?? '', MARK: mark },
        ready: async () => ({ note: readFileSync(mark, 'utf8').trim() }),
        startSeconds: 10,
        stopSeconds: 10,
        ...more,
      },
      { guard: python, log: join(folder, 'thing.log'), say: (line) => said.push(line), lookMs: 50 },
    );
    started.push(one);
    return one;
  }
  const SERVE = 'echo up > $MARK; exec sleep 600';

  async function until(what: string, isSo: () => boolean): Promise<void> {
    for (const end = Date.now() + 10_000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 10))) {
      if (Date.now() > end) throw new Error(`in vain: ${what}`);
    }
  }

  it('starts, tells its state, and stops without leaving a process', async () => {
    const one = part(SERVE);
    expect(await one.start()).to.deep.equal({ note: 'up' });
    const pid = one.pid() ?? 0;
    expect(one.status()).to.deep.include({ state: 'ready', pid, restarts: 0 });
    await one.stop();
    expect(isAlive(pid)).to.equal(false);
    expect(one.status()).to.deep.include({ state: 'stopped', pid: undefined });
  });

  it('is started again when it dies, and says so', async () => {
    const one = part(SERVE);
    await one.start();
    const before = one.pid();
    await one.kill();
    await one.untilReady();
    expect(one.pid()).to.not.equal(before);
    expect(one.status().restarts).to.equal(1);
    expect(said.join('\n')).to.match(/thing ended \(killed by SIGKILL\): starts again in 0.25 s\nthing is back \(pid \d+\)/);
  });

  it('is ended and started again when nothing else mends it, and says why', async () => {
    let why = '';
    const one = part(SERVE, { broken: async () => why });
    await one.start();
    const before = one.pid();
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(one.pid()).to.equal(before);
    why = 'it stores nothing';
    await until('a new start', () => one.status().restarts > 0);
    why = '';
    await one.untilReady();
    expect(one.pid()).to.not.equal(before);
    expect(said.join('\n')).to.match(
      /^thing is ended, to start again: it stores nothing\nthing ended \(.*SIGTERM\): starts again in 0.25 s/,
    );
  });

  it('waits longer each time that it dies at once', async () => {
    const one = part(`if [ -e ${join(folder, 'once')} ]; then echo no luck; exit 3; fi; touch ${join(folder, 'once')}; ${SERVE}`);
    await one.start();
    await one.kill();
    await until('three deaths', () => one.status().restarts >= 3);
    const pauses = said.flatMap((line) => /starts again in (\S+) s/.exec(line)?.[1] ?? []);
    expect(pauses.slice(0, 3)).to.deep.equal(['0.25', '0.5', '1']);
    expect(said.join('\n')).to.match(/the thing ended before it was ready \(exit status 3\)/);
  });

  it('is not started again after a stop, whatever it waits for', async () => {
    const one = part(`if [ -e ${join(folder, 'once')} ]; then exit 3; fi; touch ${join(folder, 'once')}; ${SERVE}`);
    await one.start();
    await one.kill();
    await until('a pause', () => one.status().state === 'restarting' && one.status().restarts >= 2);
    await one.stop();
    const { restarts } = one.status();
    await new Promise((resolve) => setTimeout(resolve, 1200)); // longer than its next pause
    expect(one.status()).to.deep.include({ state: 'stopped', restarts, pid: undefined });
  });

  it('that cannot start tells its last lines and the way out', async () => {
    const one = part('echo first; echo "Error: listen EADDRINUSE: address already in use 127.0.0.1:80" >&2; exit 1');
    const fault = await one.start().catch((error: StartFault) => error);
    expect(fault).to.be.instanceOf(StartFault);
    if (!(fault instanceof StartFault)) return;
    expect(fault.message).to.equal('the thing ended before it was ready (exit status 1)');
    expect(fault.lines).to.deep.equal(['first', 'Error: listen EADDRINUSE: address already in use 127.0.0.1:80']);
    expect(fault.wayOut).to.match(/another process uses its port/);
    expect(one.status().state).to.equal('stopped');
  });

  it('whose program is missing says so', async () => {
    const fault = await part('', { command: '/no/such/program' })
      .start()
      .catch((error: StartFault) => error);
    expect((fault as StartFault).lines.join()).to.equal('/no/such/program: No such file or directory');
  });

  it('that does not get ready in time is ended', async () => {
    const one = part('', { startSeconds: 0.3, args: ['-c', `echo $$ > ${join(folder, 'pid')}; exec sleep 600`] });
    const fault = await one.start().catch((error: Error) => error);
    expect((fault as Error).message).to.match(/was not ready within 0.3 s: ENOENT/);
    expect(isAlive(Number(readFileSync(join(folder, 'pid'), 'utf8')))).to.equal(false);
  });

  it('whose probe hangs is told so, and does not hold the start back for ever', async () => {
    const one = part(SERVE, { ready: () => new Promise(() => undefined), startSeconds: 3.1 });
    const fault = await one.start().catch((error: Error) => error);
    expect((fault as Error).message).to.match(/was not ready within 3.1 s: it does not answer within 3 s/);
  });

  it('that does not heed SIGTERM is killed', async () => {
    const one = part("trap '' TERM; echo up > $MARK; while :; do sleep 0.05; done", { stopSeconds: 0.2 });
    await one.start();
    const pid = one.pid() ?? 0;
    await one.stop();
    expect(isAlive(pid)).to.equal(false);
    expect(said).to.include('thing did not stop within 0.2 s: killed');
  });

  it('that stands still is stopped in order', async () => {
    const one = part(`trap 'echo bye > ${join(folder, 'bye')}; exit 0' TERM; echo up > $MARK; while :; do sleep 0.02; done`);
    await one.start();
    one.signal('SIGSTOP');
    await one.stop();
    expect(readFileSync(join(folder, 'bye'), 'utf8')).to.equal('bye\n');
  });

  it('is signalled once when it is stopped twice', async () => {
    const count = join(folder, 'count');
    const program = `import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: open('${count}', 'a').write('x'))
open(os.environ['MARK'], 'w').write('up')
while not os.path.exists('${count}'): time.sleep(0.01)
time.sleep(0.4)`;
    const one = part('', { command: python, args: ['-c', program] });
    await one.start();
    const first = one.stop();
    await until('the first signal', () => existsSync(count));
    await Promise.all([first, one.stop()]);
    expect(readFileSync(count, 'utf8')).to.equal('x');
  });

  it('that is stopped while it prepares does not start', async () => {
    const prepared = Promise.withResolvers<void>();
    const one = part(SERVE, { prepare: () => prepared.promise });
    const start = one.start().catch((error: Error) => error);
    const stop = one.stop();
    prepared.resolve();
    expect(await start).to.be.instanceOf(Error);
    await stop;
    expect(one.pid()).to.equal(undefined);
    expect(one.status().state).to.equal('stopped');
  });

  it('ends with the launcher, even when that is killed', async () => {
    const program = join(folder, 'launcher.ts');
    writeFileSync(
      program,
      `import { supervise } from ${JSON.stringify(join(import.meta.dirname, 'supervise.ts'))};
       const part = { name: 'thing', what: 'the thing', command: 'sleep', args: ['600'], env: process.env, ready: async () => ({}), startSeconds: 10, stopSeconds: 10 };
       const one = supervise(part, { guard: ${JSON.stringify(python)}, log: ${JSON.stringify(join(folder, 'log'))}, say: console.log });
       await one.start();
       console.log('pid ' + one.pid());`,
    );
    const launcher = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] });
    others.push(launcher);
    const pid = await new Promise<number>((resolve) =>
      launcher.stdout?.on('data', (text) => resolve(Number(/pid (\d+)/.exec(String(text))?.[1]))),
    );
    await until('the command runs', () => readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('sleep'));
    launcher.kill('SIGKILL');
    await until('the part has ended', () => !isAlive(pid));
  });
});
