import { expect } from 'chai';
import { isLong, longer } from '../long.ts';
import { runChaos } from './script.ts';

describe('a power cut', function () {
  const cuts = longer('power cuts', 1, 20);
  this.timeout(cuts * 300_000);

  before(function () {
    if (process.getuid?.() !== 0) this.skip(); // small disks are for root
  });

  it('costs no execution that was accepted', async function () {
    const { code, output } = await runChaos(cuts, '--power');
    if (/no power can be cut here/.test(output)) this.skip();
    expect(output).to.match(/\n0 lost, 0 doubled, 0 gaps\n$/);
    expect(code).to.equal(0);
  });

  (isLong ? it : it.skip)('would, were commits not on the disk: the checker notices', async () => {
    expect((await runChaos(1, '--power', '--unflushed')).output).to.match(/\n[1-9]\d* lost, /);
  });
});
