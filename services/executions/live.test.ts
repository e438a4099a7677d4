import { createHash } from 'node:crypto';
import { expect } from 'chai';
import { Execution_State as State } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionServiceService, type TailExecutionLogsResponse as Frame } from '#gen/millrace/executions/v1/execution_service.ts';
import { openPool, schemaOf } from '#platform/db.ts';
import { until } from '../../tests/world.ts';
import { type Lab, startLab } from './dispatcher/fixture.test.ts';
import { draft } from './fixture.test.ts';
import { find } from './reconcile-system.ts';

describe('executions with a dispatcher and a real automation server', function () {
  this.timeout(60_000);
  let lab: Lab;
  before(async () => {
    lab = await startLab();
    await lab.runner();
  });
  after(() => lab.stop());
  const client = () => lab.world.as(lab.person, ExecutionServiceService);

  it('show each line while the script runs; who leaves goes on where he was, and counts and hashes agree', async () => {
    const source = `
import sys, time
def main(n: int):
    for i in range(n):
        print(f"line {i} é")
        if i % 10 == 0:
            print("aside", i, file=sys.stderr)
        time.sleep(0.02)
    return n
`;
    const id = await lab.start(await lab.publish({ source }), { input: { n: 60 } });
    const seen: Frame[] = [];
    let partings = 0;
    for (let isOver = false; !isOver; ) {
      const cursor = seen.findLast(({ entry }) => entry)?.entry?.cursor ?? '';
      let count = 0;
      for await (const frame of client().tailExecutionLogs({ id, cursor, follow: true })) {
        if (frame.keepAlive) continue;
        seen.push(frame);
        isOver = frame.end !== undefined;
        count += 1;
        if (count === 15 && !isOver) break;
      }
      if (!isOver) partings += 1;
      if (partings === 1) expect((await lab.get(id)).state).to.equal(State.RUNNING);
    }
    const entries = seen.flatMap(({ entry }) => entry ?? []);
    expect(entries.map(({ seq }) => seq)).to.deep.equal(Array.from({ length: 66 }, (_, seq) => seq));
    const hash = createHash('sha256').update(entries.map(({ text, partial }) => (partial ? text : `${text}\n`)).join(''));
    expect(seen.find(({ attemptEnd }) => attemptEnd)?.attemptEnd).to.deep.equal({
      attempt: 1,
      count: 66,
      sha256: hash.digest('hex'),
      droppedBytes: 0,
    });
    expect(seen.at(-1)?.end).to.deep.equal({ code: 0, message: '', state: State.SUCCEEDED });
    expect(partings).to.be.above(2);
  });

  it('come back from RunAndWait with their results, many at once, and break no promise', async () => {
    const automationId = await lab.publish({ source: 'def main(n: int):\n    print(n)\n    return n * n\n' });
    const wait = { seconds: 50, nanos: 0 };
    const done = await Promise.all(
      Array.from({ length: 60 }, (_, n) => client().runAndWait({ execution: draft(automationId, { input: { n } }), wait, requestId: '' })),
    );
    expect(done.map(({ output }) => output)).to.deep.equal(done.map((_, n) => n * n));
    const pool = openPool(lab.world.config, schemaOf(lab.world.config, 'executions'), 1);
    const connection = await pool.getConnection();
    expect(await find(connection)).to.deep.equal({ places: [], limits: [] });
    connection.release();
    await pool.end();
  });

  it('are told at their end, by RunAndWait and by a watch, as a read tells them', async () => {
    const source = `
import millrace
def main(what: str):
    millrace.progress(0.5, "half")
    if what == "fails":
        raise ValueError("no")
    return "x" * 20_000 if what == "large" else {"what": what, "n": [1, None, 1.5]}
`;
    const automationId = await lab.publish({ source });
    for (const what of ['small', 'large', 'fails']) {
      const execution = draft(automationId, { input: { what }, labels: { a: 'b' }, priority: 3 });
      const done = await client().runAndWait({ execution, wait: { seconds: 30, nanos: 0 }, requestId: '' });
      const read = await lab.get(done.id);
      expect(read.endTime).to.be.an.instanceOf(Date);
      expect(done).to.deep.equal(read);
      const { id } = await client().createExecution({ execution, requestId: '' });
      const frames = [];
      for await (const frame of client().watchExecution({ id })) if (frame.execution) frames.push(frame.execution);
      expect(frames.at(-1)).to.deep.equal({ ...(await lab.get(id)), input: undefined });
    }
  });

  it('stop when they are cancelled, within the grace period, and say so', async () => {
    const source = 'import time\ndef main():\n    print("begun")\n    time.sleep(120)\n';
    const id = await lab.start(await lab.publish({ source }));
    await until('the script', async () => (await lab.get(id)).startTime);
    expect((await client().cancelExecution({ id, reason: 'enough' })).state).to.equal(State.CANCELLING);
    expect((await lab.ended(id)).state).to.equal(State.CANCELLED);
    expect((await client().listAttempts({ id })).attempts.map(({ state }) => state)).to.deep.equal([6]);
  });

  it('are killed when the grace is over, though the script minds nothing, and their server has room again', async () => {
    const source =
      'import time, signal\ndef main():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    print("begun")\n    while True:\n        time.sleep(1)\n';
    const id = await lab.start(await lab.publish({ source }));
    await until('the script', async () => (await lab.get(id)).startTime);
    await client().cancelExecution({ id, reason: 'enough', grace: { seconds: 0, nanos: 0 } });
    expect((await lab.ended(id, 5000)).state).to.equal(State.CANCELLED);
    expect((await client().listAttempts({ id })).attempts.map(({ state }) => state)).to.deep.equal([6]);
    const quick = await lab.publish({ source: 'def main(n: int):\n    return n\n' });
    const ids = await Promise.all(Array.from({ length: 9 }, (_, n) => lab.start(quick, { input: { n } })));
    for (const one of ids) expect((await lab.ended(one)).state).to.equal(State.SUCCEEDED);
  });
});
