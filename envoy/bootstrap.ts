// How Envoy starts: its admin port, its limits, and the files where everything else is.
import { join, resolve } from 'node:path';
import { extension, type Fields, resource, socket } from './config.ts';
import type { EdgeSettings } from './settings.ts';

// How Envoy is started, after `-c <folder>/envoy.json`. Without the first, a mistyped field of security would be left out silently. A reload
// that changes the listener cuts what is still open after the drain time; streams resume by their cursor.
export const ENVOY_FLAGS: readonly string[] = [
  '--reject-unknown-dynamic-fields',
  '--disable-hot-restart',
  ...['--drain-time-s', '60'],
  ...['--file-flush-interval-msec', '1000'],
  ...['-l', 'warning'],
];

const MIB = 1024 * 1024;
const MAX_HEAP_BYTES = 1024 * MIB;
const MAX_CONNECTIONS = 10_000;

// What the admin port answers; everything else there could read or stop the edge.
const ADMIN_PATHS = [
  { exact: '/ready' },
  { prefix: '/stats' },
  { prefix: '/listeners' },
  { prefix: '/drain_listeners' },
  { exact: '/healthcheck/fail' },
];

const watched = (folder: string, file: string): Fields => ({
  path: resolve(folder, file),
  watched_directory: { path: resolve(folder) },
});
export const fromFile = (folder: string, file: string): Fields => ({
  resource_api_version: 'V3',
  path_config_source: watched(folder, file),
});

export function bootstrap(settings: EdgeSettings, folder: string): Fields {
  const admin = settings.adminAddress ?? join(resolve(folder), 'admin.sock');
  return {
    node: { id: 'edge', cluster: 'edge' },
    admin: { address: admin.startsWith('/') ? { pipe: { path: admin, mode: 0o600 } } : socket(admin), allow_paths: ADMIN_PATHS },
    dynamic_resources: { cds_config: fromFile(folder, 'cds.json'), lds_config: fromFile(folder, 'lds.json') },
    overload_manager: overload,
  };
}

// One file with everything, for `envoy --mode validate`.
export const folded = ({ dynamic_resources: _, ...bootstrap }: Fields, clusters: Fields[], listener: Fields): Fields => ({
  ...bootstrap,
  static_resources: { clusters, listeners: [listener] },
});

export const discovery = (type: string, resources: readonly Fields[]): Fields => ({
  resources: resources.map((fields) => resource(type, fields)),
});

// Sheds load before memory or connections run out.
const overload: Fields = {
  refresh_interval: '0.25s',
  resource_monitors: [
    { name: 'heap', typed_config: extension('resource_monitors.fixed_heap.v3.FixedHeapConfig', { max_heap_size_bytes: MAX_HEAP_BYTES }) },
    {
      name: 'envoy.resource_monitors.global_downstream_max_connections',
      typed_config: extension('resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig', {
        max_active_downstream_connections: MAX_CONNECTIONS,
      }),
    },
  ],
  actions: [
    { name: 'envoy.overload_actions.shrink_heap', triggers: [{ name: 'heap', threshold: { value: 0.9 } }] },
    { name: 'envoy.overload_actions.stop_accepting_requests', triggers: [{ name: 'heap', threshold: { value: 0.95 } }] },
  ],
};
