import { expect } from 'chai';
import { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import { openDialer } from '#platform/client.ts';
import { loadContract } from '#platform/contract.ts';
import type { Stack } from '../../deploy/local/stack.ts';
import { expectGapless, GREETING, journey, wholeLog } from './journey.ts';
import { type Api, ended, expectStatus, frames, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

const TICKER = `
import time
def main(count: int):
    for i in range(count):
        print("tick", i)
        time.sleep(0.02)
`;

describe('an execution', function () {
  this.timeout(60_000);
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  it('is accepted, run, watched and finished, also for a task', () => journey(ann));

  it('shows lines while the script still runs', async () => {
    const id = await run(ann, await publish(ann, TICKER), { count: 100 });
    for await (const frame of frames(ann, `/v1/executions/${id}/logs?follow=true`, { sse: true })) {
      if (frame.entry?.seq === 5) break;
    }
    expect((await ann.get(`/v1/executions/${id}`)).body.state).to.equal('RUNNING');
    await ended(ann, id);
  });

  it('has one log for all: by SSE, by lines, by gRPC, resumed anywhere', async () => {
    const id = await run(ann, await publish(ann, TICKER), { count: 40 });
    const pieces: Json[] = [];
    for (let cursor = '', over = false; !over; ) {
      for await (const frame of frames(ann, `/v1/executions/${id}/logs?follow=true&cursor=${cursor}`, { sse: true })) {
        over = Boolean(frame.end);
        if (!frame.entry) continue;
        pieces.push(frame.entry);
        cursor = frame.entry.cursor;
        if (pieces.length % 7 === 0) break; // leave, and come back with the cursor
      }
    }
    const lines = await wholeLog(ann, id);
    expectGapless(lines);
    expect(pieces).to.deep.equal(lines.entries);
    const dialer = openDialer({ contract: loadContract('build/image.binpb'), sign: async () => ann.token });
    const texts: string[] = [];
    for await (const frame of dialer
      .client(ExecutionServiceService, stack.urls.host)
      .tailExecutionLogs({ id, cursor: '', follow: false })) {
      if (frame.entry) texts.push(frame.entry.text);
    }
    dialer.close();
    expect(texts).to.deep.equal(lines.entries.map((entry) => entry.text));
  });

  it('fails with the traceback of the script, after the attempts of its policy', async () => {
    const source = 'def main():\n    print("trying")\n    raise ValueError("no such customer")\n';
    const id = await run(ann, await publish(ann, source, { retryPolicy: { maxAttempts: 2, initialInterval: '0.1s' } }));
    const done = await ended(ann, id);
    expect(done).to.include({ state: 'FAILED', attemptCount: 2 });
    expect(done.error).to.include({ type: 'ValueError', message: 'no such customer' });
    expect(done.error.traceback).to.include('line 3').and.not.include('millrace_automation');
    const log = await wholeLog(ann, id);
    expect(log.ends.map((end) => end.attempt)).to.deep.equal([1, 2]);
    expectGapless(log);
    const attempts = (await ann.get(`/v1/executions/${id}/attempts`)).body.attempts;
    expect(attempts.map((one: Json) => one.state)).to.deep.equal(['FAILED', 'FAILED']);
    expect(attempts[0].sandboxTier).to.be.oneOf([1, 2]);
  });

  it('is refused with an input that does not fit, naming the place', async () => {
    const refused = await ann.post('/v1/executions', { automationId: await publish(ann, GREETING), input: { name: 7 } });
    expect(refused.status).to.equal(400);
    expect(JSON.stringify(refused.body)).to.include('INPUT_INVALID').and.include('name');
  });

  it('is cancelled, with the script’s own clean-up', async () => {
    const source =
      'import time\ndef main():\n    try:\n        print("working")\n        time.sleep(60)\n    finally:\n        print("cleaned up")\n';
    const id = await run(ann, await publish(ann, source));
    for await (const frame of frames(ann, `/v1/executions/${id}/logs?follow=true`)) if (frame.entry) break;
    expect((await expectStatus(200, ann.post(`/v1/executions/${id}:cancel`))).body.state).to.equal('CANCELLING');
    expect((await ended(ann, id)).state).to.equal('CANCELLED');
    expect((await wholeLog(ann, id)).entries.map((entry) => entry.text)).to.include.members(['working', 'cleaned up']);
  });

  it('times out', async () => {
    const id = await run(ann, await publish(ann, 'import time\ndef main():\n    time.sleep(60)\n', { timeouts: { startToClose: '0.5s' } }));
    const done = await ended(ann, id);
    expect([done.state, done.error.type]).to.deep.equal(['TIMED_OUT', 'StartToCloseTimeout']);
  });

  it('waits for its time, answers in one call, and can be repeated', async () => {
    const automation = await publish(ann, GREETING);
    const later = await run(ann, automation, { name: 'Later' }, { scheduleTime: new Date(Date.now() + 1500).toISOString() });
    expect((await ann.get(`/v1/executions/${later}`)).body.state).to.equal('SCHEDULED');
    const now = await expectStatus(
      200,
      ann.post('/v1/executions:runAndWait', { execution: { automationId: automation, input: { name: 'Now', count: 1 } } }),
    );
    expect(now.body).to.deep.include({ state: 'SUCCEEDED', output: { greeted: 'Now', times: 1 } });
    const again = await expectStatus([200, 201], ann.post(`/v1/executions/${now.body.id}:retry`));
    expect(again.body.retryOf).to.equal(now.body.id);
    expect((await ended(ann, again.body.id)).output).to.deep.equal({ greeted: 'Now', times: 1 });
    const done = await ended(ann, later);
    expect(Date.parse(done.startTime)).to.be.at.least(Date.parse(done.scheduleTime));
  });

  it('runs the new revision as soon as it is published, and the old one after a roll-back', async () => {
    const say = (text: string) => `def main():\n    return "${text}"\n`;
    const automation = await publish(ann, say('one'));
    const result = async () =>
      (await expectStatus(200, ann.post('/v1/executions:runAndWait', { execution: { automationId: automation } }))).body.output;
    expect(await result()).to.equal('one');
    await expectStatus([200, 201], ann.post(`/v1/automations/${automation}/revisions`, { spec: { source: say('two') } }));
    expect(await result()).to.equal('one');
    await expectStatus(200, ann.post(`/v1/automations/${automation}:publish`));
    expect(await result()).to.equal('two');
    await expectStatus([200, 201], ann.post(`/v1/automations/${automation}:rollback`));
    expect(await result()).to.equal('one');
    const diff = await expectStatus(200, ann.get(`/v1/automations/${automation}/revisions:diff?from=1&to=2`));
    expect(diff.body.sourceDiff).to.include('-    return "one"').and.include('+    return "two"');
    const broken = await ann.post(`/v1/automations/${automation}/revisions`, { spec: { source: 'def main(:\n    pass\n' } });
    expect(broken.status).to.equal(400);
    expect(JSON.stringify(broken.body)).to.include('SOURCE_INVALID').and.include('spec.source:1:');
  });
});
