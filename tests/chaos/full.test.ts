import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { longer } from '../long.ts';

describe('a full disk', function () {
  const times = longer('full disks', 1, 5);
  this.timeout(times * 300_000);

  before(function () {
    if (process.getuid?.() !== 0) this.skip(); // small disks are for root
  });

  // In a process of its own: it mounts a small disk, which vanishes with it.
  it('is got over by database and broker, and costs no execution that was accepted', async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, '../../scripts/chaos.ts'), '--fill'], {
      env: { ...process.env, ROUNDS: String(times) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
    const [code] = await once(child, 'close');
    console.log(output.trimEnd().replaceAll(/^/gm, '      '));
    if (/no disk can be filled here/.test(output)) return;
    expect(output).to.match(/\n0 lost, 0 doubled, 0 gaps\n$/);
    expect(code).to.equal(0);
  });
});
