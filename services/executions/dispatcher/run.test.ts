import { expect } from 'chai';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { until } from '../../../tests/world.ts';
import { breaches } from '../engine/fixture.test.ts';
import { attempts, type Lab, runningOf, startLab, stateOf } from './fixture.test.ts';

describe('a dispatcher with real automation servers', function () {
  this.timeout(60_000);
  let lab: Lab;
  before(async () => {
    lab = await startLab();
    await lab.runner();
    await lab.runner();
  });
  after(() => lab.stop());
  afterEach(async () => {
    expect(await breaches(lab.world.db('executions'))).to.deep.equal({ misplaced: 0, slots: 0 });
  });

  const texts = async (id: string): Promise<string[]> => (await lab.logs(id)).flatMap(({ entry }) => (entry ? [entry.text] : []));

  it('runs an execution to its end, with its log, result and attempt', async () => {
    const adder = await lab.publish({ source: 'def main(a: int, b: int = 2):\n    print("adding")\n    return {"sum": a + b}\n' });
    const id = await lab.start(adder, { input: { a: 40 } });
    const done = await lab.ended(id);
    expect(stateOf(done)).to.equal('SUCCEEDED');
    expect(done.output).to.deep.equal({ sum: 42 });
    expect(done).to.include({ attemptCount: 1, version: 2 });
    expect(await texts(id)).to.deep.equal(['adding']);
    expect((await lab.logs(id)).find(({ attemptEnd }) => attemptEnd)?.attemptEnd).to.include({ attempt: 1, count: 1 });
    const [attempt] = await attempts(lab.world, id);
    expect(attempt).to.include({ state: 'SUCCEEDED', number: 1, log_count: 1, isolation: 'FRESH' });
    expect(attempt.sandbox_tier).to.be.at.least(1);
    expect(attempt.end_time >= attempt.start_time && attempt.start_time >= (done.createTime ?? 0)).to.equal(true);
  });

  it('takes large inputs and outputs', async () => {
    const echo = await lab.publish({ source: 'def main(text: str):\n    return text[::-1]\n' });
    const text = 'abcdefghij'.repeat(60_000);
    const done = await lab.ended(await lab.start(echo, { input: { text } }));
    expect(done.output).to.equal([...text].reverse().join(''));
  });

  it('retries what fails, and tells why', async () => {
    const retryPolicy = { maxAttempts: 2, initialInterval: { seconds: 0, nanos: 1e8 }, coefficient: 0, nonRetryableTypes: [] };
    const failing = await lab.publish({
      source: 'def main():\n    print("trying")\n    raise KeyError("nothing")\n',
      retryPolicy: { maxInterval: undefined, ...retryPolicy },
    });
    const id = await lab.start(failing);
    const done = await lab.ended(id);
    expect(stateOf(done)).to.equal('FAILED');
    expect(done.attemptCount).to.equal(2);
    expect(done.error).to.include({ type: 'KeyError', retryable: false });
    expect(done.error?.traceback).to.include('raise KeyError');
    expect(await texts(id)).to.deep.equal(['trying', 'trying']);
    expect((await attempts(lab.world, id)).map(({ state }) => state)).to.deep.equal(['FAILED', 'FAILED']);
  });

  it('ends what takes too long', async () => {
    const timeouts = {
      startToClose: { seconds: 0, nanos: 3e8 },
      scheduleToStart: undefined,
      scheduleToClose: undefined,
      heartbeat: undefined,
    };
    const retryPolicy = { maxAttempts: 1, initialInterval: undefined, maxInterval: undefined, coefficient: 0, nonRetryableTypes: [] };
    const slow = await lab.publish({ source: 'import time\ndef main():\n    time.sleep(60)\n', timeouts, retryPolicy });
    const done = await lab.ended(await lab.start(slow));
    expect(stateOf(done)).to.equal('TIMED_OUT');
    expect(done.error?.type).to.equal('StartToCloseTimeout');
    const hurried = await lab.publish({
      source: 'import time\ndef main():\n    time.sleep(60)\n',
      timeouts: { ...timeouts, startToClose: undefined, scheduleToClose: { seconds: 1, nanos: 0 } },
    });
    expect((await lab.ended(await lab.start(hurried))).error?.type).to.equal('ScheduleToCloseTimeout');
  });

  it('ends an attempt that gives no sign of life for too long', async () => {
    const source = 'import millrace, time\ndef main():\n    millrace.progress(0.1, "begun")\n    time.sleep(60)\n';
    const timeouts = {
      startToClose: undefined,
      scheduleToStart: undefined,
      scheduleToClose: undefined,
      heartbeat: { seconds: 1, nanos: 0 },
    };
    const retryPolicy = { maxAttempts: 1, initialInterval: undefined, coefficient: 0, maxInterval: undefined, nonRetryableTypes: [] };
    const done = await lab.ended(await lab.start(await lab.publish({ source, timeouts, retryPolicy })));
    expect([stateOf(done), done.error?.type, done.progress?.message]).to.deep.equal(['TIMED_OUT', 'HeartbeatTimeout', 'begun']);
  });

  it('stops what runs when it is cancelled, and what it prints on the way is kept', async () => {
    const source = `
import time, sys
def main():
    print("begun")
    try:
        while True:
            time.sleep(0.01)
    finally:
        print("cleaning up")
`;
    const id = await lab.start(await lab.publish({ source }));
    await until('it to begin', async () => (await runningOf(lab.world, id))?.line_count === 1);
    await lab.world.as(lab.person, ExecutionServiceService).cancelExecution({ id, reason: 'enough' });
    const done = await lab.ended(id);
    expect(stateOf(done)).to.equal('CANCELLED');
    expect(await texts(id)).to.deep.equal(['begun', 'cleaning up']);
    expect((await attempts(lab.world, id)).map(({ state }) => state)).to.deep.equal(['CANCELLED']);
  });

  it('tells how far a script is', async () => {
    const source = 'import millrace, time\ndef main():\n    millrace.progress(0.25, "a quarter")\n    time.sleep(1)\n';
    const id = await lab.start(await lab.publish({ source }));
    const seen = await until('the progress', async () => (await lab.get(id)).progress);
    expect(seen).to.deep.equal({ fraction: 0.25, message: 'a quarter' });
    const done = await lab.ended(id);
    expect(stateOf(done)).to.equal('SUCCEEDED');
    expect(done.progress).to.deep.equal({ fraction: 0.25, message: 'a quarter' });
  });

  it('runs two hundred on two servers, each once', async () => {
    const quick = await lab.publish({ source: 'def main(n: int):\n    print(n)\n    return n\n' });
    const ids = await Promise.all(Array.from({ length: 200 }, (_, n) => lab.start(quick, { input: { n } })));
    for (const [n, id] of ids.entries()) {
      const done = await lab.ended(id, 40_000);
      expect(done).to.include({ output: n, attemptCount: 1, version: 2 });
    }
    const rows = await lab.world.db('executions')('attempts').select('server').countDistinct({ n: 'execution' }).groupBy('server');
    expect(rows).to.have.length(2);
    for (const id of ids.slice(0, 5)) expect(await texts(id)).to.deep.equal([`${ids.indexOf(id)}`]);
  });
});
