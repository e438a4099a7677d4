import { expect } from 'chai';
import { longer } from '../long.ts';
import { runChaos } from './script.ts';

describe('a full disk', function () {
  const times = longer('full disks', 1, 5);
  this.timeout(times * 300_000);

  before(function () {
    if (process.getuid?.() !== 0) this.skip(); // small disks are for root
  });

  it('is got over by database and broker, and costs no execution that was accepted', async function () {
    const { code, output } = await runChaos(times, '--fill');
    if (/no disk can be filled here/.test(output)) this.skip();
    expect(output).to.match(/\n0 lost, 0 doubled, 0 gaps\n$/);
    expect(code).to.equal(0);
  });
});
