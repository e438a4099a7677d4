// One launcher for one data folder, and the way to ask it. The kernel frees the name when the launcher ends, however that ends, so
// there is no stale lock; nothing but the state is told here, which holds no secret.
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';

// What a running launcher tells about itself.
export interface Report {
  pid: number;
  isReady: boolean;
  banner: string;
  parts: PartReport[];
}
export interface PartReport {
  name: string;
  state: string;
  pid: number | undefined;
  address: string | undefined;
  restarts: number;
  upSeconds: number;
  memoryMib: number;
  complaint: string; // what is wrong with it although it runs
}

// A name in Linux' abstract namespace of local sockets (unix(7)).
const nameOf = (root: string): string =>
  `\0millrace-${process.getuid?.()}-${createHash('sha256').update(realpathSync(root)).digest('hex').slice(0, 32)}`;

// Takes the name. Undefined when another launcher has it.
export const take = (root: string, report: () => Promise<Report>): Promise<Server | undefined> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined); // who asked has gone
      report().then(
        (told) => socket.end(JSON.stringify(told)),
        () => socket.destroy(),
      );
    });
    server.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(nameOf(root), () => resolve(server));
  });

// What the launcher of a data folder tells. Undefined when none runs.
export const ask = (root: string): Promise<Report | undefined> =>
  new Promise((resolve, reject) => {
    const socket = connect({ path: nameOf(root), timeout: 5000 });
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('end', () => resolve(text === '' ? undefined : (JSON.parse(text) as Report)));
    socket.on('timeout', () => socket.destroy(new Error('the launcher does not answer')));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'ECONNREFUSED' || error.code === 'ECONNRESET' ? resolve(undefined) : reject(error),
    );
  });
