import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { isLong, longer } from '../long.ts';

describe('a power cut', function () {
  const cuts = longer('power cuts', 1, 20);
  this.timeout(cuts * 300_000);

  // In a process of its own: it mounts a small disk, which vanishes with it.
  async function cut(rounds: number, ...more: string[]): Promise<{ code: number; output: string }> {
    const child = spawn(process.execPath, [join(import.meta.dirname, '../../scripts/chaos.ts'), '--power', ...more], {
      env: { ...process.env, ROUNDS: String(rounds) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
    const [code] = await once(child, 'close');
    if (/no power can be cut here/.test(output)) console.log(`      ${output}`);
    return { code, output };
  }

  before(function () {
    if (process.getuid?.() !== 0) this.skip(); // small disks are for root
  });

  it('costs no execution that was accepted', async () => {
    const { code, output } = await cut(cuts);
    console.log(output.trimEnd().replaceAll(/^/gm, '      '));
    expect(output).to.match(/\n0 lost, 0 doubled, 0 gaps\n$/);
    expect(code).to.equal(0);
  });

  (isLong ? it : it.skip)('would, were commits not on the disk: the checker notices', async () => {
    expect((await cut(1, '--unflushed')).output).to.match(/\n[1-9]\d* lost, /);
  });
});
