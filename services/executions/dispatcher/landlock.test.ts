import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { until } from '../../../tests/world.ts';
import { type Lab, ROOT, startLab, stateOf } from './fixture.test.ts';

// Loaded by Python before anything else: the sandbox makes neither namespaces nor Landlock rules, and does not know.
const WITHOUT = `
from millrace_automation.sandbox.settings import SandboxSettings
SandboxSettings.__init__.__defaults__ = (*SandboxSettings.__init__.__defaults__[:-1], 0)
`;

describe('an automation server whose kernel does not hold scripts', function () {
  this.timeout(120_000);
  let lab: Lab;
  before(async () => {
    lab = await startLab();
  });
  after(() => lab.stop());

  it('is not ready and runs nothing; executions wait and say why, until there is one that can', async () => {
    writeFileSync(join(lab.world.folder, 'sitecustomize.py'), WITHOUT);
    const weak = await lab.runner({ PYTHONPATH: `${lab.world.folder}:${join(ROOT, 'automation')}` });
    const address = await until('its admin address', () => /"admin\w*": ?"([^"]+)"/i.exec(weak.output())?.[1], 30_000);
    const ready = await fetch(`http://${address}/readyz`);
    expect(ready.status).to.equal(503);
    const id = await lab.start(await lab.publish({ source: 'def main():\n    return 1\n' }));
    const waiting = await until('the reason', async () => {
      const found = await lab.get(id);
      return found.waitingReason === 'SANDBOX_UNAVAILABLE' ? found : undefined;
    }, 30_000); // biome-ignore format: a probe
    expect([stateOf(waiting), waiting.attemptCount]).to.deep.equal(['QUEUED', 0]);
    await lab.runner();
    expect(await lab.ended(id, 60_000)).to.include({ attemptCount: 1, output: 1 });
  });
});
