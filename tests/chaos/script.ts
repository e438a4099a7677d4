// Runs scripts/chaos.ts in a process of its own: it mounts small disks, which vanish with it. What it printed is shown.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

export async function runChaos(rounds: number, ...options: string[]): Promise<{ code: number; output: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../scripts/chaos.ts'), ...options], {
    env: { ...process.env, ROUNDS: String(rounds) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
  const [code] = await once(child, 'close');
  console.log(output.trimEnd().replaceAll(/^/gm, '      '));
  return { code, output };
}
