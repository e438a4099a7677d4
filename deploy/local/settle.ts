// When a start is over: parts that are ready one by one have also found each other, so that what is started next need not wait.
import { setTimeout as sleep } from 'node:timers/promises';
import { AREAS, type Wiring } from './environment.ts';
import { StartFault } from './faults.ts';
import { START_SECONDS } from './part.ts';
import { automationReadiness, edgeHealth } from './programs.ts';

const EVERY_MS = 50;

export async function settle(w: Wiring, names: readonly string[], say: (line: string) => void, signal?: AbortSignal): Promise<void> {
  const runs = (module: string) =>
    Object.entries(w.processes).some(([name, modules]) => names.includes(name) && (modules.includes(module) || modules.includes('all')));
  const isWhole = names.includes('edge') && ['health', 'dispatcher', ...AREAS].every(runs);
  const end = Date.now() + START_SECONDS * 1000;
  const look = async (): Promise<string> => {
    const servers = await Promise.all(
      w.automations.filter((name) => names.includes(name)).map(async (name) => ({ name, ...(await automationReadiness(w, name)) })),
    );
    const unused = runs('dispatcher')
      ? servers.filter(({ ready, checks }) => ready && checks.session !== 'ok').map(({ name, checks }) => `${name}: ${checks.session}`)
      : [];
    const unwell = isWhole
      ? (await edgeHealth(w))
          .filter((area) => area !== 'runner' || servers.every(({ ready }) => ready))
          .map((area) => `${area}: not serving`)
      : [];
    return [...unused, ...unwell].join(', ');
  };
  for (let last = ''; ; ) {
    const missing = await look().catch((error: Error) => error.message); // who is slow is asked again
    if (missing === '') return;
    if (Date.now() > end) throw new StartFault(`gave up waiting for ${missing}`, 'read what `make logs` tells of these parts');
    if (missing !== last) say(`waiting for ${missing}`);
    last = missing;
    await sleep(EVERY_MS, undefined, { signal });
  }
}
