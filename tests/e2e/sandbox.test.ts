import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { expectGapless, wholeLog } from './journey.ts';
import { type Api, ended, expectStatus, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const ONCE = { retryPolicy: { maxAttempts: 1 } };

describe('a hostile script', function () {
  this.timeout(90_000);
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  const end = async (source: string, spec: Record<string, unknown> = {}): Promise<Json> =>
    ended(ann, await run(ann, await publish(ann, source, { ...ONCE, ...spec })));

  it('that forks without end is stopped, and its neighbour is not disturbed', async () => {
    const neighbour = await publish(
      ann,
      'import time\ndef main():\n    for i in range(20):\n        print(i)\n        time.sleep(0.05)\n    return "well"\n',
    );
    const beside = run(ann, neighbour);
    const bomb = await end('import os\ndef main():\n    while True:\n        os.fork()\n', { timeouts: { startToClose: '3s' } });
    expect(bomb.state).to.be.oneOf(['FAILED', 'TIMED_OUT']);
    const done = await ended(ann, await beside);
    expect([done.state, done.output]).to.deep.equal(['SUCCEEDED', 'well']);
  });

  it('that prints without end has its log cut at 10 MiB and is stopped', async () => {
    const id = await run(
      ann,
      await publish(ann, 'def main():\n    while True:\n        print("y" * 1000)\n', { ...ONCE, timeouts: { startToClose: '6s' } }),
    );
    expect((await ended(ann, id)).state).to.equal('TIMED_OUT');
    const log = await wholeLog(ann, id);
    expectGapless(log);
    expect(log.ends[0].droppedBytes).to.be.above(0);
    expect(log.entries.at(-1)?.stream).to.equal('SYSTEM');
  });

  it('that takes 4 GiB ends with a typed error', async () => {
    const done = await end('def main():\n    x = bytearray(4 << 30)\n    for i in range(0, len(x), 4096):\n        x[i] = 1\n');
    expect(done.state).to.equal('FAILED');
    expect(done.error.type).to.be.oneOf(['MemoryError', 'MemoryExceeded']);
  });

  it('that sleeps for ever and ignores SIGTERM is killed after its grace', async () => {
    const source =
      'import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef main():\n    while True:\n        time.sleep(60)\n';
    const done = await end(source, { timeouts: { startToClose: '0.5s' } });
    expect([done.state, done.error.type]).to.deep.equal(['TIMED_OUT', 'StartToCloseTimeout']);
    expect(done.error.message).not.to.include('its server did not end it'); // else the dispatcher has given it up, much later
  });

  it('sees neither /etc/shadow nor a network', async () => {
    const shadow = await end('def main():\n    return open("/etc/shadow").read()\n');
    expect([shadow.state, shadow.error.type]).to.satisfy(
      ([state, type]: string[]) => state === 'FAILED' && /PermissionError|FileNotFoundError/.test(type ?? ''),
    );
    const socket = await end('import socket\ndef main():\n    socket.create_connection(("127.0.0.1", 1), 1)\n');
    expect([socket.state, socket.error.type]).to.deep.equal(['FAILED', 'PermissionError']);
  });

  it('that prints bytes that are no text, or a line of 5 MB, is read faithfully', async () => {
    const source =
      'import sys\ndef main():\n    sys.stdout.buffer.write(b"\\xff\\n")\n    sys.stdout.flush()\n    print("z" * 5_000_000)\n    return "done"\n';
    const id = await run(ann, await publish(ann, source, ONCE));
    expect((await ended(ann, id)).output).to.equal('done');
    const log = await wholeLog(ann, id);
    expectGapless(log);
    expect(log.entries[0]?.text).to.equal('\uFFFD');
    const long = log.entries.slice(1);
    expect(long.map((entry) => entry.text).join('')).to.equal('z'.repeat(5_000_000));
    expect(Math.max(...long.map((entry) => entry.text.length))).to.be.at.most(16_384);
  });

  it('cannot return more than 1 MiB', async () => {
    const done = await end('def main():\n    return "x" * 2_000_000\n');
    expect([done.state, done.error.type]).to.deep.equal(['FAILED', 'OutputTooLarge']);
  });

  it('leaves the server well', async () => {
    expect((await expectStatus(200, ann.get('/health'))).body.areas.runner).to.equal('SERVING');
  });
});
