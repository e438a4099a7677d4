import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { longer } from '../long.ts';

describe('chaos by a seed', function () {
  const rounds = longer('rounds of chaos', 1, 40);
  this.timeout(rounds * 600_000);

  // In a process of its own: it mounts a small disk, which vanishes with it.
  it('loses, doubles and skips nothing, whatever is killed, stopped, cut off, wiped and filled up', async () => {
    const long = rounds > 1 ? ['--long'] : [];
    const child = spawn(process.execPath, [join(import.meta.dirname, '../../scripts/chaos.ts'), ...long], {
      env: { ...process.env, ROUNDS: String(rounds) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
    const [code] = await once(child, 'close');
    console.log(output.trimEnd().replaceAll(/^/gm, '      '));
    expect(output).to.match(/\n0 lost, 0 doubled, 0 gaps\n$/);
    expect(code, output).to.equal(0);
  });
});
