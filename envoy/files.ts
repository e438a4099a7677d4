// Puts the edge into a folder, so that a running Envoy never sees half of it: the descriptor first, then what refers to it.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigFault } from '#platform/config.ts';
import { discovery } from './bootstrap.ts';
import type { Fields } from './config.ts';
import type { Edge } from './generate.ts';

const FOLDED = 'validate.json';

export function write(edge: Edge, folder: string): void {
  const before = existsSync(join(folder, 'lds.json')) ? readFileSync(join(folder, 'lds.json'), 'utf8') : '';
  put(folder, edge.descriptor.name, edge.descriptor.bytes);
  put(folder, 'cds.json', text(discovery('cluster.v3.Cluster', edge.clusters)));
  put(folder, 'lds.json', text(discovery('listener.v3.Listener', [edge.listener])));
  put(folder, 'rds.json', text(discovery('route.v3.RouteConfiguration', [edge.routes])));
  put(folder, 'envoy.json', text(edge.bootstrap));
  put(folder, FOLDED, text(edge.folded));
  // The one before is kept: an Envoy that starts just now may still open it.
  for (const file of readdirSync(folder))
    if (/^edge-.*\.binpb$/.test(file) && file !== edge.descriptor.name && !before.includes(file)) rmSync(join(folder, file));
}

const text = (fields: Fields): string => `${JSON.stringify(fields, null, 1)}\n`;

// Envoy looks when a file is renamed into the folder, and one with the same content would only cost it work.
function put(folder: string, file: string, content: string | Uint8Array): void {
  const path = join(folder, file);
  if (existsSync(path) && readFileSync(path).equals(Buffer.from(content))) return;
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

const MAX_COMPLAINT = 64 * 2 ** 20; // Envoy repeats all that it refuses

export function validate(envoy: string, folder: string): void {
  const { status, error, stderr } = spawnSync(envoy, ['--mode', 'validate', '-c', join(folder, FOLDED), '-l', 'error'], {
    encoding: 'utf8',
    maxBuffer: MAX_COMPLAINT,
  });
  if (error) throw new ConfigFault(`${envoy} does not run: ${error.message}`);
  if (status !== 0) throw new ConfigFault(`Envoy refuses it:\n${stderr}`);
}
