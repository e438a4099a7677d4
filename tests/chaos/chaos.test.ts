import { expect } from 'chai';
import { longer } from '../long.ts';
import { runChaos } from './script.ts';

describe('chaos by a seed', function () {
  const rounds = longer('rounds of chaos', 1, 40);
  this.timeout(rounds * 600_000);

  it('loses, doubles and skips nothing, whatever is killed, stopped, cut off, wiped and filled up', async () => {
    const { code, output } = await runChaos(rounds, ...(rounds > 1 ? ['--long'] : []));
    expect(output).to.match(/\n0 lost, 0 doubled, 0 gaps\n$/);
    expect(code, output).to.equal(0);
  });
});
