import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { type Api, ended, publish, run, signUp } from '../e2e/rest.ts';
import { longer } from '../long.ts';
import type { Happening } from './checker.ts';
import { accept, drained, executionsOf, judge, WORK } from './load.ts';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a crash', function () {
  const rounds = longer('rounds of kill -9 of each process', 1, 10);
  const replacements = longer('rounds of replaced services', 1, 10);
  const wipes = longer('times the broker loses its store', 1, 5);
  this.timeout(300_000 * Math.max(rounds, replacements, wipes));
  let stack: Stack;
  let ann: Api;
  let automation: string;
  const history: Happening[] = [];
  before(async () => {
    stack = await startStack({ automations: 2, settings: { MILLRACE_EDGE_RATE_SCALE: '0', MILLRACE_DRAIN_MS: '200' } });
    ann = await signUp(stack.urls.base);
    automation = await publish(ann, WORK);
  });
  after(() => stack?.stop());

  it('of each process in turn, by kill -9 while 200 executions run, loses and doubles nothing', async () => {
    const all: string[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const accepted = accept(ann, automation, 200, history, round * 200);
      await sleep(1000);
      for (const part of ['api', 'dispatcher', 'automation', 'edge', 'broker', 'database']) {
        await stack.kill(part);
        await stack.ready(part);
        await sleep(500);
      }
      const ids = await accepted;
      all.push(...ids);
      const verdict = await judge(stack, ann, await drained(ann, ids, history), history);
      expect(await executionsOf(ann, automation)).to.have.members(all);
      console.log(`      ${verdict.executions} ended well; ${verdict.beyond} script starts beyond one, ${verdict.lost} attempts lost`);
    }
  });

  it('is none when services are replaced in order: no attempt is used', async () => {
    for (let round = 0; round < replacements; round += 1) {
      const accepted = accept(ann, automation, 100, history, 10_000 + round * 100);
      await sleep(800);
      for (const part of ['dispatcher', 'api', 'dispatcher']) {
        await stack.restart(part);
        await sleep(300);
      }
      const verdict = await judge(stack, ann, await drained(ann, await accepted, history), history);
      expect(verdict).to.deep.equal({ executions: 100, lost: 0, beyond: 0 });
    }
  });

  it('of the broker that loses its store costs no execution that waits', async () => {
    for (let wipe = 0; wipe < wipes; wipe += 1) {
      await stack.halt('dispatcher');
      const ids = await accept(ann, automation, 60, history, 20_000 + wipe * 60);
      await stack.halt('broker');
      rmSync(join(stack.layout.data, 'nats', 'jetstream'), { recursive: true, force: true });
      await stack.restart('broker');
      await stack.restart('dispatcher');
      await judge(stack, ann, await drained(ann, ids, history), history);
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
