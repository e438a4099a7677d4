import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { type Api, ended, expectStatus, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

describe('dead letters through the edge', () => {
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(240_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  it('show an execution that failed for good with its input and attempts, and run it again with another', async function () {
    this.timeout(60_000);
    const retryPolicy = { maxAttempts: 2, initialInterval: '0s' };
    const automation = await publish(ann, 'def main(by: int):\n    return 6 // by\n', { retryPolicy });
    const id = await run(ann, automation, { by: 0 });
    expect((await ended(ann, id)).state).to.equal('FAILED');
    const { body: page } = await expectStatus(200, ann.get('/v1/deadLetters?filter.kind=EXECUTION'));
    expect(page.deadLetters.map((one: { id: string }) => one.id)).to.deep.equal([id]);
    expect(page.deadLetters[0]).to.deep.include({ state: 'DEAD', attemptCount: 2, automationId: automation });
    const { body: whole } = await expectStatus(200, ann.get(`/v1/deadLetters/${id}`));
    expect(whole.execution.input).to.deep.equal({ by: 0 });
    expect(whole.attempts.map((one: { error: { type: string } }) => one.error.type)).to.deep.equal([
      'ZeroDivisionError',
      'ZeroDivisionError',
    ]);
    const { body: redriven } = await expectStatus(200, ann.post(`/v1/deadLetters/${id}:redrive`, { input: { by: 3 } }));
    expect(redriven.state).to.equal('REDRIVEN');
    expect((await ended(ann, redriven.redrivenAs)).output).to.equal(2);
    const { body: rest } = await expectStatus(200, ann.get('/v1/deadLetters'));
    expect(rest.deadLetters ?? []).to.deep.equal([]);
    await expectStatus(403, ann.get('/v1/platform/deadLetters'));
  });
});
