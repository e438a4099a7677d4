import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { toBytes } from '#platform/id.ts';
import { until } from '../../../tests/world.ts';
import { breaches } from '../engine/fixture.test.ts';
import { attempts, type Lab, runningOf, startLab, stateOf } from './fixture.test.ts';

// Prints a line every 20 ms, for a while.
const TALKER = `
import time
def main(lines: int = 100):
    for i in range(lines):
        print(f"line {i}")
        time.sleep(0.02)
    return lines
`;
const expected = (count: number): string[] => Array.from({ length: count }, (_, index) => `line ${index}`);

describe('dispatchers and servers that are killed, stopped and woken', function () {
  this.timeout(120_000);
  let lab: Lab;
  let talker: string;
  before(async () => {
    lab = await startLab({ targets: ['executions'], env: { MILLRACE_DISPATCHER_SERVER_LEASE_MS: '6000' } });
    await lab.runner();
    talker = await lab.publish({ source: TALKER });
  });
  afterEach(() => lab.stopDispatchers());
  after(() => lab.stop());

  const lineCount = async (id: string): Promise<number> => (await runningOf(lab.world, id))?.line_count ?? 0;
  const clean = async () => expect(await breaches(lab.world.db('executions'))).to.deep.equal({ misplaced: 0, slots: 0 });

  // Every line once and in order, and the attempt's own count and hash of them.
  async function checkLog(id: string, texts: readonly string[]): Promise<void> {
    const frames = await lab.logs(id);
    expect(frames.flatMap(({ entry }) => (entry ? [entry.text] : []))).to.deep.equal(texts);
    const sha256 = createHash('sha256')
      .update(texts.map((text) => `${text}\n`).join(''))
      .digest('hex');
    expect(frames.find(({ attemptEnd }) => attemptEnd)?.attemptEnd).to.include({ count: texts.length, sha256 });
  }

  it('adopts what runs when a dispatcher is killed: no attempt is used, no line is lost or doubled', async () => {
    const first = await lab.dispatcher();
    await lab.ended(await lab.start(talker, { input: { lines: 1 } })); // the server is its own
    const second = await lab.dispatcher(); // before: how long it takes to start is not what is tried
    const ids = await Promise.all(Array.from({ length: 4 }, () => lab.start(talker, { input: { lines: 250 } })));
    for (const id of ids) await until('some lines', async () => (await lineCount(id)) > 20);
    first.signal('SIGKILL');
    for (const id of ids) {
      const done = await lab.ended(id, 30_000);
      expect(stateOf(done)).to.equal('SUCCEEDED');
      expect(done.attemptCount).to.equal(1);
      await checkLog(id, expected(250));
    }
    expect(second.output()).to.include('a session was taken up');
    await clean();
    await second.stop();
  });

  it('hands its servers over when it is told to stop', async () => {
    const first = await lab.dispatcher();
    const id = await lab.start(talker, { input: { lines: 150 } });
    await until('some lines', async () => (await lineCount(id)) > 20);
    const second = await lab.dispatcher();
    await first.stop();
    const owner = (await lab.world.db('executions')('servers').select('owner').first()).owner;
    expect(stateOf(await lab.ended(id))).to.equal('SUCCEEDED');
    await checkLog(id, expected(150));
    expect(owner === null || Buffer.isBuffer(owner)).to.equal(true);
    await second.stop();
  });

  it('lets a dispatcher that stood still past its lease write nothing', async () => {
    const patient = { MILLRACE_DISPATCHER_SERVER_LEASE_MS: '20000' }; // what runs is not given up while the other one takes over, however busy the machine
    const first = await lab.dispatcher(patient);
    // It prints for longer than the lease and taking over last together.
    const id = await lab.start(talker, { input: { lines: 800 } });
    await until('some lines', async () => (await lineCount(id)) > 20);
    const second = await lab.dispatcher(patient); // before: how long it takes to start is not what is tried
    first.signal('SIGSTOP');
    await until('the other one to adopt', () => second.output().includes('a session was taken up'), 30_000);
    const before = await lineCount(id);
    await until('lines to come again', async () => (await lineCount(id)) > before + 20);
    first.signal('SIGCONT');
    const done = await lab.ended(id, 40_000);
    expect(stateOf(done)).to.equal('SUCCEEDED');
    expect(done.attemptCount).to.equal(1);
    await checkLog(id, expected(800));
    await clean();
    await first.stop();
    await second.stop();
  });

  for (const place of ['claim.after_select', 'intake.before_commit']) {
    it(`takes over from one that stands still at ${place}, with its locks, and lets it write nothing when it wakes`, async () => {
      const frozen = await lab.dispatcher({ MILLRACE_FAILPOINT: `${place}:pause` });
      const ids = [await lab.start(talker, { input: { lines: 100 } }), await lab.start(talker, { input: { lines: 100 } })];
      await until('it to stand still', () => readFileSync(`/proc/${frozen.child.pid}/stat`, 'utf8').includes(') T '), 20_000);
      const heir = await lab.dispatcher();
      for (const id of ids) {
        const done = await lab.ended(id, 40_000);
        expect(stateOf(done)).to.equal('SUCCEEDED');
        expect(done).to.include({ attemptCount: 1, version: 2 });
      }
      frozen.signal('SIGCONT');
      await until(
        'it to give up its servers',
        () => frozen.output().includes('is given up') || frozen.output().includes('a session broke'),
      );
      for (const id of ids) await checkLog(id, expected(100));
      await clean();
      await frozen.stop();
      await heir.stop();
    });
  }

  for (const place of ['claim.after_ack', 'claim.after_select', 'claim.after_commit', 'intake.before_commit', 'intake.after_commit']) {
    it(`loses nothing when a dispatcher is killed at ${place}`, async () => {
      const quick = await lab.publish({ source: 'def main():\n    print("quick")\n    return 1\n' });
      const doomed = await lab.dispatcher({ MILLRACE_FAILPOINT: `${place}:exit:3` });
      const ids = await Promise.all(Array.from({ length: 12 }, () => lab.start(quick)));
      await until('it to be killed', async () => {
        if (doomed.child.signalCode === 'SIGKILL') return true;
        ids.push(await lab.start(quick)); // until it has passed the place often enough
        return false;
      });
      const heir = await lab.dispatcher();
      for (const id of ids) {
        const done = await lab.ended(id, 30_000);
        expect(stateOf(done)).to.equal('SUCCEEDED');
        expect(done).to.include({ attemptCount: 1, version: 2 });
        await checkLog(id, ['quick']);
        expect((await attempts(lab.world, id)).map(({ number }) => number)).to.deep.equal([1]);
      }
      await clean();
      await heir.stop();
    });
  }

  it('finds an execution whose only ticket died with a dispatcher', async () => {
    const doomed = await lab.dispatcher({ MILLRACE_FAILPOINT: 'claim.after_ack:exit' });
    const id = await lab.start(await lab.publish({ source: 'def main():\n    return 1\n' }));
    await until('it to be killed', () => doomed.child.signalCode === 'SIGKILL');
    const heir = await lab.dispatcher();
    expect(stateOf(await lab.ended(id, 15_000))).to.equal('SUCCEEDED');
    await heir.stop();
  });

  it('retries or fails what ran on an automation server that is killed, and keeps its lines', async () => {
    const dispatcher = await lab.dispatcher();
    const careful = await lab.publish({ source: TALKER, onLost: 2 });
    const doomed = await lab.runner();
    const ids = { retried: '', failed: '' };
    const db = lab.world.db('executions');
    // Which of the two servers gets one is not ours to say: start until the doomed one has one of each kind.
    await until(
      'the doomed one to have both',
      async () => {
        for (const [name, automation] of [
          ['retried', talker],
          ['failed', careful],
        ] as const) {
          if (ids[name]) continue;
          const id = await lab.start(automation, { input: { lines: 300 } });
          const row = await until('it to start', async () => {
            const found = await runningOf(lab.world, id);
            return found?.line_count > 0 ? found : undefined;
          });
          if (row.server.equals(toBytes('server', doomed.id))) ids[name] = id;
        }
        return ids.retried && ids.failed;
      },
      30_000,
    );
    await until('its lease to be the dispatcher’s, not the longer one of its registration', async () =>
      db('servers')
        .where({ id: toBytes('server', doomed.id) })
        .where('lease_until', '<', db.raw('NOW(6) + INTERVAL 7 SECOND'))
        .first(),
    );
    doomed.signal('SIGKILL');
    const failed = await lab.ended(ids.failed, 30_000);
    expect(stateOf(failed)).to.equal('FAILED');
    expect(failed.error?.type).to.equal('WorkerLost');
    const retried = await lab.ended(ids.retried, 40_000);
    expect(stateOf(retried)).to.equal('SUCCEEDED');
    expect(retried.attemptCount).to.equal(2);
    expect((await attempts(lab.world, ids.retried)).map(({ state }) => state)).to.deep.equal(['LOST', 'SUCCEEDED']);
    const frames = await lab.logs(ids.retried);
    const lines = frames.flatMap(({ entry }) => (entry?.attempt === 2 ? [entry.text] : []));
    expect(lines).to.deep.equal(expected(300));
    expect(await db('servers').where({ state: 'LOST' })).to.have.length(1);
    await clean();
    await dispatcher.stop();
  });
});
