import { expect } from 'chai';
import { breaches } from '../engine/fixture.test.ts';
import { attempts, type Lab, startLab, stateOf } from './fixture.test.ts';

describe('a dispatcher with a real automation server', function () {
  this.timeout(60_000);
  let lab: Lab;
  before(async () => {
    lab = await startLab();
    await lab.runner();
  });
  after(() => lab.stop());

  it('runs an execution to its end, with its log, result and attempt', async () => {
    const id = await lab.start(
      await lab.publish({ source: 'def main(a: int, b: int = 2):\n    print("adding")\n    return {"sum": a + b}\n' }),
      { input: { a: 40 } },
    );
    const done = await lab.ended(id);
    expect(stateOf(done)).to.equal('SUCCEEDED');
    expect(done.output).to.deep.equal({ sum: 42 });
    expect(done).to.include({ attemptCount: 1, version: 2 });
    const frames = await lab.logs(id);
    expect(frames.map(({ entry }) => entry?.text).filter(Boolean)).to.deep.equal(['adding']);
    expect(frames.find(({ attemptEnd }) => attemptEnd)?.attemptEnd).to.include({ attempt: 1, count: 1 });
    expect((await attempts(lab.world, id))[0]).to.include({ state: 'SUCCEEDED', number: 1, log_count: 1 });
    expect(await breaches(lab.world.db('executions'))).to.deep.equal({ misplaced: 0, slots: 0 });
  });
});
