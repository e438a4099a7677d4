// Where an installation on one machine keeps its files. Everything lies below one folder and can be deleted with it.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface Layout {
  root: string;
  data: string; // database and broker
  secrets: string; // mode 0700
  logs: string;
  run: string; // configuration made at each start
  state: string; // the ports of the last start
  env: string; // shell variables for the examples of the README
}

export const REPOSITORY = resolve(import.meta.dirname, '../..');

export function layoutOf(root: string): Layout {
  const at = resolve(root);
  return {
    root: at,
    data: join(at, 'data'),
    secrets: join(at, 'secrets'),
    logs: join(at, 'logs'),
    run: join(at, 'run'),
    state: join(at, 'state.json'),
    env: join(at, 'env'),
  };
}

const LONGEST_SOCKET = 108; // bytes of a path, with its end (unix(7))
export const fitsSocket = (path: string): boolean => Buffer.byteLength(path) < LONGEST_SOCKET;

export function makeFolders(layout: Layout): void {
  for (const folder of [layout.root, layout.data, layout.secrets, layout.logs, layout.run])
    mkdirSync(folder, { recursive: true, mode: 0o700 });
}
