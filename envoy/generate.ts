// Makes the edge: Envoy's whole configuration from the descriptor image of the contracts and a few settings.
//
//   node envoy/generate.ts --out=<folder> [--validate]
//
// writes envoy.json (the bootstrap), the descriptor, and cds.json, lds.json and rds.json, which a running Envoy reads again whenever they
// change. It is started with ENVOY_FLAGS (bootstrap.ts):
//
//   .venv/bin/envoy -c <folder>/envoy.json --reject-unknown-dynamic-fields --disable-hot-restart --drain-time-s 60
//     --file-flush-interval-msec 1000 -l warning
//
// It is ready when GET /ready on its admin port (admin.sock in the folder) answers 200. Before it is stopped,
// POST /drain_listeners?graceful lets open calls end.
import { mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigFault } from '#platform/config.ts';
import { type Contract, ContractFault, loadContract } from '#platform/contract.ts';
import { bootstrap, folded, fromFile } from './bootstrap.ts';
import { clusters } from './clusters.ts';
import type { Fields } from './config.ts';
import { type Descriptor, pruneDescriptor } from './descriptor.ts';
import { validate, write } from './files.ts';
import { listener } from './listener.ts';
import { isServed, scaledLimits } from './policy.ts';
import { routeConfiguration } from './routes.ts';
import { type EdgeSettings, readEdgeSettings } from './settings.ts';

export interface Edge {
  descriptor: Descriptor;
  bootstrap: Fields;
  clusters: Fields[];
  listener: Fields;
  routes: Fields;
  folded: Fields; // all of it in one file: `envoy --mode validate` does not read what is dynamic (envoyproxy/envoy#36289)
}

// `folder` is where the files will be: they name each other by absolute paths.
export function generate(settings: EdgeSettings, contract: Contract, folder: string): Edge {
  const methods = [...contract.methods.values()].filter(isServed);
  const limits = scaledLimits(settings.rateScale);
  const descriptor = pruneDescriptor(contract, methods);
  const listenerWith = (routes: Fields) =>
    listener({ methods, settings, limits, descriptorPath: resolve(folder, descriptor.name), routes });
  const edge = {
    descriptor,
    bootstrap: bootstrap(settings, folder),
    clusters: clusters(methods, settings),
    listener: listenerWith({
      rds: { route_config_name: 'edge', config_source: fromFile(folder, 'rds.json') },
    }),
    routes: routeConfiguration(methods, settings, limits),
  };
  return { ...edge, folded: folded(edge.bootstrap, edge.clusters, listenerWith({ route_config: edge.routes })) };
}

function main(): void {
  const { values } = parseArgs({
    options: { out: { type: 'string', default: 'build/edge' }, validate: { type: 'boolean', default: false } },
  });
  const settings = readEdgeSettings();
  mkdirSync(values.out, { recursive: true });
  const edge = generate(settings, loadContract(settings.imagePath), values.out);
  write(edge, values.out);
  if (values.validate) validate(settings.envoyPath, values.out);
  console.log(`the edge is in ${values.out}${values.validate ? ', and Envoy accepts it' : ''}`);
}

if (import.meta.main) {
  try {
    main();
  } catch (error) {
    if (!(error instanceof ConfigFault || error instanceof ContractFault)) throw error;
    console.error(`the edge cannot be made: ${error.message}`);
    process.exitCode = 2;
  }
}
