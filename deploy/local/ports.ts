// Ports on loopback: free ones, kept from one start to the next.
import { randomInt } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { StartFault } from './faults.ts';

export const FIRST_PUBLIC = 8000;

// Below the ports that Linux gives to outgoing connections: one of those could take a part's port while the part restarts.
const LOWEST = 20_000;
const HIGHEST = 32_000;
const TRIES = 200;

const canListen = (port: number, host: string): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE' && error.code !== 'EACCES'));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });

// Both addresses that `localhost` may mean: a program on the other one would be answered instead.
export const isFree = async (port: number): Promise<boolean> => (await canListen(port, '127.0.0.1')) && (await canListen(port, '::1'));

const given = new Set<number>(); // by this process: whoever asked may not listen yet

export async function freePort(): Promise<number> {
  for (let i = 0; i < TRIES; i += 1) {
    const port = randomInt(LOWEST, HIGHEST);
    if (given.has(port) || !(await isFree(port)) || given.has(port)) continue;
    given.add(port);
    return port;
  }
  throw new StartFault(`found no free port between ${LOWEST} and ${HIGHEST}`, 'end some of the programs that listen there');
}

// The first free port from the preferred one on.
export async function publicPort(preferred = FIRST_PUBLIC): Promise<number> {
  for (let port = preferred; port < preferred + 100; port += 1) if (await isFree(port)) return port;
  throw new StartFault(`ports ${preferred} to ${preferred + 99} are all taken`, 'set MILLRACE_EDGE_ADDRESS=127.0.0.1:<a free port>');
}

type Ports = Record<string, number>;

function known(file: string): Ports {
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { ports?: Ports }).ports ?? {};
  } catch {
    return {}; // the first start, or a file cut short by a crash: new ports do no harm
  }
}

// A port for each name: the one of the last start where it is still free.
export async function keepPorts(file: string, names: readonly string[]): Promise<Ports> {
  const before = known(file);
  const ports: Ports = {};
  const taken = new Set<number>();
  for (const name of names) {
    const last = before[name];
    const port = last && !taken.has(last) && (await isFree(last)) ? last : await freePort();
    taken.add(port);
    ports[name] = port;
  }
  writeFileSync(file, `${JSON.stringify({ ports: { ...before, ...ports } }, null, 2)}\n`);
  return ports;
}
