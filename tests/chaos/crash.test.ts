import { expect } from 'chai';
import { createConnection } from 'mysql2/promise';
import { PROCESSES } from '../../deploy/local/environment.ts';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { expectGapless, wholeLog } from '../e2e/journey.ts';
import { type Api, ended, publish, run, signUp } from '../e2e/rest.ts';
import { longer } from '../long.ts';
import { until } from '../world.ts';
import { check, type Happening } from './checker.ts';
import { drained } from './load.ts';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const SECONDS = 30; // that a script of these tests takes

describe('a crash', function () {
  const replacements = longer('rounds of replaced parts', 1, 10);
  const pauses = longer('rounds of paused commits', 1, 10);
  this.timeout(300_000 * Math.max(replacements, pauses));
  let stack: Stack;
  let ann: Api;
  const history: Happening[] = [];
  before(async () => {
    stack = await startStack({
      processes: { ...PROCESSES, 'dispatcher-2': ['dispatcher'] },
      automations: 2,
      settings: {
        MILLRACE_EDGE_RATE_SCALE: '0',
        MILLRACE_DRAIN_MS: '200',
        MILLRACE_AUTOMATION_SLOTS: '100',
        MILLRACE_AUTOMATION_DRAIN_SECONDS: '40', // longer than the scripts below: who stops waits for them
      },
    });
    ann = await signUp(stack.urls.base);
  });
  after(() => stack?.stop());

  // Scripts that print every so often, all of them at work.
  async function printing(count: number, lines: number, seconds: number): Promise<string[]> {
    const source = `import time\ndef main():\n    for i in range(${lines}):\n        print(i)\n        time.sleep(${seconds / lines})\n    return "through"\n`;
    const talker = await publish(ann, source, { retryPolicy: { maxAttempts: 1 }, onLost: 'FAIL' });
    const ids = await Promise.all(Array.from({ length: count }, () => run(ann, talker)));
    const [last = ''] = ids.slice(-1);
    await until(
      'all to run',
      async () =>
        (await Promise.all(ids.map(async (id) => (await ann.get(`/v1/executions/${id}`)).body.state))).every(
          (state) => state === 'RUNNING',
        ),
      30_000,
    );
    expect(last).not.to.equal('');
    return ids;
  }
  // None was started twice, none is short of a line.
  async function through(ids: readonly string[], lines: number): Promise<void> {
    for (const done of await drained(ann, ids, history))
      expect([done.state, done.output, done.attemptCount], JSON.stringify(done.error)).to.deep.equal(['SUCCEEDED', 'through', 1]);
    for (const id of ids) {
      const log = await wholeLog(ann, id);
      expectGapless(log);
      expect(log.entries.map(({ text }) => text)).to.deep.equal(Array.from({ length: lines }, (_, index) => String(index)));
    }
    const { databaseUrl, databasePrefix } = stack.wiring;
    const found = await check(history, { databaseUrl, databasePrefix, databaseConnections: 1 }, `${databasePrefix}_executions`);
    expect(found).to.deep.equal({ violations: [], unfinished: [] });
  }

  it('is none when every part is replaced in order under 200 running scripts: no attempt is used, no line is missing', async () => {
    for (let round = 0; round < replacements; round += 1) {
      const ids = await printing(200, 50, SECONDS);
      for (const part of ['automation', 'dispatcher', 'api', 'dispatcher-2', 'edge', 'broker', 'database', 'dispatcher'])
        await stack.restart(part);
      await through(ids, 50);
    }
  });

  it('is none while nothing can be committed for 20 seconds and 50 scripts print', async () => {
    for (let round = 0; round < pauses; round += 1) {
      const ids = await printing(50, 100, SECONDS);
      const connection = await createConnection(stack.wiring.databaseUrl);
      await connection.query('FLUSH TABLES WITH READ LOCK');
      await sleep(20_000);
      await connection.query('UNLOCK TABLES');
      await connection.end();
      await through(ids, 100);
    }
  });

  it('of the database for a minute kills no script', async () => {
    const long = await publish(
      ann,
      'import time\ndef main():\n    for i in range(80):\n        print(i)\n        time.sleep(1)\n    return "through"\n',
      { retryPolicy: { maxAttempts: 1 } },
    );
    const ids = [await run(ann, long), await run(ann, long)];
    await sleep(3000);
    await stack.halt('database');
    await sleep(60_000);
    await stack.restart('database');
    await Promise.all([stack.ready('api'), stack.ready('dispatcher')]);
    for (const done of await drained(ann, ids, history))
      expect([done.state, done.output, done.attemptCount], JSON.stringify(done.error)).to.deep.equal(['SUCCEEDED', 'through', 1]);
    expect((await ended(ann, ids[0] ?? '')).state).to.equal('SUCCEEDED');
  });
});
