import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { freePort } from '../../deploy/local/ports.ts';
import { until } from '../../tests/world.ts';
import { type Bus, openBus } from './bus.ts';
import { openLog } from './log.ts';

describe('the bus', function () {
  this.timeout(20_000);
  let folder: string;
  let port: number;
  let broker: ChildProcess | undefined;
  let bus: Bus | undefined;
  let lines: string[];
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-bus-'));
    port = await freePort();
  });
  beforeEach(() => {
    lines = [];
  });
  afterEach(async () => {
    await bus?.stop();
    await end();
  });
  after(() => rmSync(folder, { recursive: true }));

  function begin(authorization: string): void {
    const config = join(folder, 'nats.conf');
    writeFileSync(config, `listen: "127.0.0.1:${port}"\nauthorization { ${authorization} }\n`);
    broker = spawn('.venv/bin/nats-server', ['-c', config], { stdio: 'ignore' });
  }
  async function end(): Promise<void> {
    if (broker?.exitCode !== null) return;
    broker.kill('SIGKILL');
    await once(broker, 'exit');
  }
  const open = (natsUrl: string): Bus => {
    bus = openBus({ natsUrl, natsPrefix: 'test' }, openLog('debug', { write: (line) => void lines.push(line) }));
    return bus;
  };
  const isUp = (one: Bus) =>
    until('the bus', () =>
      one.state().then(
        () => true,
        () => false,
      ),
    );

  it('is let in by the user and the password of its address, one of its servers being away', async () => {
    begin('user: ann, password: "p@ss:w/rd"');
    await isUp(open(`nats://127.0.0.1:${await freePort()},nats://ann:p%40ss%3Aw%2Frd@127.0.0.1:${port}`));
  });

  it('is let in by the token of its address', async () => {
    begin('token: "t0ken"');
    await isUp(open(`nats://t0ken@127.0.0.1:${port}`));
  });

  it('that is not let in waits, says so without its password, and is let in when that has changed', async () => {
    begin('user: ann, password: other');
    const one = open(`nats://ann:s3cret@127.0.0.1:${port}`);
    await until('a complaint', () => /waiting for the broker/.test(lines.join('')) && /authorization/i.test(lines.join('')));
    expect(await one.state().catch((error: Error) => error.message)).to.equal('the broker does not answer');
    await end();
    begin('user: ann, password: s3cret');
    await isUp(one);
    expect(lines.join('')).not.to.include('s3cret');
  });

  it('that was let in comes back although it is refused for a while', async () => {
    begin('user: ann, password: s3cret');
    const one = open(`nats://ann:s3cret@127.0.0.1:${port}`);
    await isUp(one);
    let refusals = 0;
    void (async () => {
      for await (const { type } of (await one.connection()).status()) if (type === 'error' || type === 'reconnecting') refusals += 1;
    })();
    await end();
    begin('user: ann, password: other');
    await until('some refusals', () => refusals > 6);
    await end();
    begin('user: ann, password: s3cret');
    await isUp(one);
  });
});
