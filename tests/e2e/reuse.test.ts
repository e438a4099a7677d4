import { expect } from 'chai';
import type { Stack } from '../../deploy/local/stack.ts';
import { wholeLog } from './journey.ts';
import { type Api, ended, expectStatus, type Json, publish, run, signUp } from './rest.ts';
import { theStack } from './stack.ts';

// Counts the runs of its process, whose prints and files another run must not see.
const COUNTS = `
import os
runs = 0
def main(do: str = ""):
    global runs
    runs += 1
    print("run", runs, os.listdir())
    open("left", "w").close()
    exec(do)
    return runs
`;

describe('a process that is kept', function () {
  this.timeout(90_000);
  let stack: Stack;
  let ann: Api;
  before(async function () {
    this.timeout(120_000);
    stack = await theStack();
    ann = await signUp(stack.urls.base);
  });

  const once = async (api: Api, automation: string, input: Json = {}): Promise<{ done: Json; attempt: Json; id: string }> => {
    const id = await run(api, automation, input);
    const done = await ended(api, id);
    const { attempts } = (await expectStatus(200, api.get(`/v1/executions/${id}/attempts`))).body;
    return { done, attempt: attempts.at(-1), id };
  };
  const outputs = async (api: Api, automation: string, times = 2): Promise<unknown[]> => {
    const found = [];
    for (let time = 0; time < times; time += 1) found.push((await once(api, automation)).done.output);
    return found;
  };

  it('runs a main function again and again, and says so; each run has its own log and files', async () => {
    const automation = await publish(ann, COUNTS);
    for (const turn of [1, 2, 3]) {
      const { done, attempt, id } = await once(ann, automation);
      expect([done.state, done.output, attempt.isolation]).to.deep.equal(['SUCCEEDED', turn, 'REUSED']);
      expect((await wholeLog(ann, id)).entries.map((entry: Json) => entry.text)).to.deep.equal([`run ${turn} ['script.py']`]);
    }
  });

  it('is not used where the automation asks for fresh ones, and never by a plain script', async () => {
    expect(await outputs(ann, await publish(ann, COUNTS, { isolation: 'FRESH' }))).to.deep.equal([1, 1]);
    const plain = await once(ann, await publish(ann, 'print("plain")', { isolation: 'REUSED' }));
    expect([plain.done.state, plain.attempt.isolation]).to.deep.equal(['SUCCEEDED', 'FRESH']);
  });

  it('is nobody else’s: not another workspace’s, not another revision’s, not another automation’s', async () => {
    const automation = await publish(ann, COUNTS);
    expect(await outputs(ann, automation)).to.deep.equal([1, 2]);
    const bob = await signUp(stack.urls.base);
    expect(await outputs(bob, await publish(bob, COUNTS))).to.deep.equal([1, 2]);
    expect(await outputs(ann, await publish(ann, COUNTS))).to.deep.equal([1, 2]);
    await expectStatus([200, 201], ann.post(`/v1/automations/${automation}/revisions`, { spec: { source: `${COUNTS}# again\n` } }));
    await expectStatus(200, ann.post(`/v1/automations/${automation}:publish`));
    expect(await outputs(ann, automation)).to.deep.equal([1, 2]);
  });

  it('ends when a run leaves a thread that prints later, a process that holds the log, or exits', async () => {
    const leavers = [
      'import threading\ndef late():\n    import time\n    while True:\n        print("late")\n        time.sleep(0.01)\nthreading.Thread(target=late, daemon=True).start()',
      'import subprocess; subprocess.Popen("while :; do echo late; sleep 0.01; done", shell=True)',
      'raise SystemExit(0)',
    ];
    const automation = await publish(ann, COUNTS);
    for (const leaver of leavers) {
      expect((await once(ann, automation, { do: leaver })).done.state).to.equal('SUCCEEDED');
      const { done, id } = await once(ann, automation, { do: 'import time; time.sleep(0.1)' });
      expect(done.output).to.equal(1);
      expect((await wholeLog(ann, id)).entries.map((entry: Json) => entry.text)).to.deep.equal(["run 1 ['script.py']"]);
      await once(ann, automation, { do: 'raise SystemExit(0)' });
    }
  });

  it('ends with a run that is cancelled', async () => {
    const automation = await publish(ann, COUNTS);
    expect(await outputs(ann, automation, 1)).to.deep.equal([1]);
    const id = await run(ann, automation, { do: 'import time; time.sleep(60)' });
    let state = '';
    while (state !== 'RUNNING') state = (await ann.get(`/v1/executions/${id}`)).body.state;
    await expectStatus(200, ann.post(`/v1/executions/${id}:cancel`));
    expect((await ended(ann, id)).state).to.equal('CANCELLED');
    expect(await outputs(ann, automation, 1)).to.deep.equal([1]);
  });
});
