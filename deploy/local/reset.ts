// `make reset`: stops the stack and deletes everything that it keeps.
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import type { Layout } from './layout.ts';

async function isConfirmed(layout: Layout, env: NodeJS.ProcessEnv): Promise<boolean> {
  if (env.CONFIRM === '1') return true;
  if (!process.stdin.isTTY) {
    console.error(`This would delete all data below ${layout.root}. To do it: make reset CONFIRM=1`);
    return false;
  }
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await lines.question(`Delete all data, secrets and logs below ${layout.root}? Type yes: `);
  lines.close();
  return answer.trim() === 'yes';
}

export async function reset(layout: Layout, env: NodeJS.ProcessEnv, down: (env: NodeJS.ProcessEnv) => Promise<number>): Promise<number> {
  if (!(await isConfirmed(layout, env))) return 1;
  const stopped = await down(env);
  if (stopped !== 0) return stopped;
  for (const path of [layout.data, layout.secrets, layout.logs, layout.run, layout.state, layout.env])
    rmSync(path, { recursive: true, force: true });
  console.log(`Deleted what was below ${layout.root}.`);
  return 0;
}
