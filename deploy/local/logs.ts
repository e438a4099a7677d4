// `make logs`: the logs of all parts or of one, and what is added to them.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { StartFault } from './faults.ts';
import type { Layout } from './layout.ts';

export async function follow({ logs }: Layout, part: string | undefined): Promise<number> {
  const known = readdirSync(logs).filter((name) => name.endsWith('.log'));
  const wanted = part ? [`${part}.log`] : known;
  if (wanted.length === 0) throw new StartFault('there are no logs yet', 'run `make up`');
  if (part && !known.includes(`${part}.log`))
    throw new StartFault(`there is no log of ${part}`, `choose PART from ${known.map((name) => name.slice(0, -4)).join(', ')}`);
  const child = spawn('tail', ['-n', '40', '-F', ...wanted.map((name) => join(logs, name))], { stdio: ['ignore', 'inherit', 'inherit'] });
  process.on('SIGINT', () => child.kill('SIGTERM'));
  return new Promise((resolve) => child.on('exit', () => resolve(0)));
}
