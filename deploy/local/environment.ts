// The only place that builds environments: what each part is told about itself and the others. Secrets go by file.
import { join } from 'node:path';
import { fitsSocket, type Layout, REPOSITORY } from './layout.ts';
import type { Secrets } from './secrets.ts';

export type Env = Record<string, string>;
export type Outer = Record<string, string | undefined>;

// What the person who starts the launcher chose by environment variables.
export interface Choices {
  home: string;
  parts: readonly string[] | undefined; // all when undefined
  databaseUrl: string | undefined;
  natsUrl: string | undefined;
  runnerUrl: string | undefined;
  edgeAddress: string | undefined;
  publicUrl: string | undefined;
  node: string;
  python: string;
  mariadbd: string | undefined;
  natsServer: string;
  envoy: string;
}
// What environments are made from.
export interface Wiring {
  layout: Layout;
  secrets: Secrets;
  choices: Choices;
  outer: Outer;
  settings: Env; // of this stack only, stronger than the launcher's own values
  settingsOf: Record<string, Env>; // of its single parts, stronger than all others
  ports: Record<string, number>;
  processes: Record<string, readonly string[]>; // the modules of each process of services
  automations: readonly string[]; // the names of the automation servers
  databaseUrl: string;
  databasePrefix: string;
  natsUrl: string;
  natsPrefix: string;
  edgeAddress: string;
  publicUrl: string;
}

export const PROCESSES = {
  api: ['health', 'identity', 'tasks', 'automations', 'executions', 'schedules', 'webhooks'],
  dispatcher: ['dispatcher'],
};
export const BUILDER = 'builder';
export const AREAS = ['health', 'identity', 'tasks', 'automations', 'executions', 'schedules', 'webhooks'];

// What any program may need from the caller: where things are, its language, whom to trust.
const PASSED = [
  'PATH',
  'HOME',
  'USER',
  'LANG',
  'LC_ALL',
  'TZ',
  'TMPDIR',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'NODE_EXTRA_CA_CERTS',
  'NODE_V8_COVERAGE',
];

const PROXIES = ['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'];

export const readChoices = (env: Outer = process.env): Choices => ({
  home: env.MILLRACE_HOME ?? join(REPOSITORY, '.millrace'),
  parts: env.MILLRACE_PARTS?.split(','),
  databaseUrl: env.MILLRACE_DATABASE_URL,
  natsUrl: env.MILLRACE_NATS_URL,
  runnerUrl: env.MILLRACE_RUNNER_URL,
  edgeAddress: env.MILLRACE_EDGE_ADDRESS,
  publicUrl: env.MILLRACE_PUBLIC_URL,
  node: env.MILLRACE_NODE ?? process.execPath,
  python: env.MILLRACE_PYTHON ?? join(REPOSITORY, '.venv/bin/python'),
  mariadbd: env.MILLRACE_MARIADBD,
  natsServer: env.MILLRACE_NATS_SERVER ?? join(REPOSITORY, '.venv/bin/nats-server'),
  envoy: env.MILLRACE_ENVOY ?? join(REPOSITORY, '.venv/bin/envoy'),
});

const local = (port: number | undefined): string => `127.0.0.1:${port}`;

const pick = (env: Outer, wanted: (name: string) => boolean): Env =>
  Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined && wanted(entry[0])));

const starts =
  (...prefixes: string[]) =>
  (name: string): boolean =>
    prefixes.some((prefix) => name.startsWith(prefix));

// Node keeps what it compiled: a process of services starts in half the time. Coverage would be less exact with it.
const compileCache = (outer: Outer): Env => (outer.NODE_V8_COVERAGE ? {} : { NODE_COMPILE_CACHE: join(REPOSITORY, 'build/cache/node') });

// What a program gets that has no settings of its own, such as the database.
export const plainEnvironment = (outer: Outer): Env => ({ LANG: 'C.UTF-8', ...pick(outer, (name) => PASSED.includes(name)) });

// What the caller set for parts of a kind, below what the launcher computes.
const chosen = (w: Wiring, ...prefixes: string[]): Env => ({
  ...plainEnvironment(w.outer),
  ...compileCache(w.outer),
  ...pick(w.outer, starts('OTEL_', 'MILLRACE_LOG_', ...prefixes)),
});

const hostOf = (w: Wiring, area: string): string | undefined =>
  Object.keys(w.processes).find((name) => w.processes[name]?.some((module) => module === area || module === 'all'));

export const adminOf = (w: Wiring, part: string): string => local(w.ports[`${part}.admin`]);
export const grpcOf = (w: Wiring, part: string): string => local(w.ports[`${part}.grpc`]);

// Where each area answers gRPC.
export function areaUrls(w: Wiring): Env {
  const urls: Env = {};
  for (const area of AREAS) {
    const host = hostOf(w, area);
    if (host) urls[`MILLRACE_${area.toUpperCase()}_URL`] = grpcOf(w, host);
  }
  const runner = w.choices.runnerUrl ?? (w.automations[0] ? grpcOf(w, w.automations[0]) : undefined);
  return runner ? { ...urls, MILLRACE_RUNNER_URL: runner } : urls;
}

const jwksUrl = (w: Wiring): Env => {
  const host = hostOf(w, 'identity');
  return host ? { MILLRACE_IDENTITY_JWKS_URL: `http://${adminOf(w, host)}/jwks` } : {};
};

const stores = (w: Wiring): Env => ({
  MILLRACE_DATABASE_URL: w.databaseUrl,
  MILLRACE_DATABASE_PREFIX: w.databasePrefix,
  MILLRACE_NATS_URL: w.natsUrl,
  MILLRACE_NATS_PREFIX: w.natsPrefix,
});

export function serviceEnvironment(w: Wiring, name: string): Env {
  const modules = w.processes[name] ?? [];
  const runs = (area: string) => modules.includes(area) || modules.includes('all');
  const others = Object.entries(areaUrls(w)).filter(
    ([key]) => !AREAS.some((area) => runs(area) && key === `MILLRACE_${area.toUpperCase()}_URL`),
  );
  return {
    ...(runs('executions') ? { MILLRACE_BLOB_FOLDER: join(w.layout.data, 'blobs'), ...awsOf(w) } : {}),
    ...chosen(w, 'MILLRACE_'),
    ...stores(w),
    ...Object.fromEntries(others),
    ...(runs('identity') ? identitySecrets(w) : jwksUrl(w)),
    ...(runs('webhooks') ? { MILLRACE_WEBHOOKS_KEY_SECRET_FILE: w.secrets.webhooksSecretFile } : {}),
    ...(runs('automations') ? { MILLRACE_AUTOMATIONS_SECRET_KEYS_FILE: w.secrets.secretKeysFile } : {}),
    MILLRACE_TARGET: modules.join(','),
    MILLRACE_GRPC_ADDRESS: grpcOf(w, name),
    MILLRACE_ADMIN_ADDRESS: adminOf(w, name),
    MILLRACE_PUBLIC_URL: w.publicUrl,
    MILLRACE_SERVICE_KEYS: w.secrets.serviceKeys,
    MILLRACE_SERVICE_JWKS: w.secrets.serviceJwks,
    OTEL_SERVICE_NAME: `millrace-${name}`,
    ...w.settings,
    ...w.settingsOf[name],
  };
}

// Where the object store's library looks for credentials, if it is to look.
function awsOf(w: Wiring): Env {
  const { MILLRACE_BLOB_S3_BUCKET: bucket, MILLRACE_BLOB_S3_ACCESS_KEY: key } = chosen(w, 'MILLRACE_BLOB_S3_');
  return bucket && !key ? pick(w.outer, starts('AWS_')) : {};
}

const identitySecrets = (w: Wiring): Env => ({
  MILLRACE_IDENTITY_KEY_SECRET_FILE: w.secrets.keySecretFile,
  MILLRACE_IDENTITY_ADMIN_EMAIL: w.outer.MILLRACE_IDENTITY_ADMIN_EMAIL ?? 'admin@millrace.local',
  MILLRACE_IDENTITY_ADMIN_PASSWORD_FILE: w.outer.MILLRACE_IDENTITY_ADMIN_PASSWORD_FILE ?? w.secrets.adminPasswordFile,
});

export const migrationEnvironment = (w: Wiring): Env => ({ ...chosen(w, 'MILLRACE_'), ...stores(w), ...w.settings });

export function automationEnvironment(w: Wiring, name: string): Env {
  const executions = areaUrls(w).MILLRACE_EXECUTIONS_URL;
  return {
    ...chosen(w, 'MILLRACE_AUTOMATION_'),
    ...(executions ? { MILLRACE_EXECUTIONS_URL: executions } : {}),
    PYTHONPATH: join(REPOSITORY, 'automation'),
    PYTHONUNBUFFERED: '1',
    PYTHONDONTWRITEBYTECODE: '1',
    MILLRACE_AUTOMATION_ADDRESS: grpcOf(w, name),
    MILLRACE_AUTOMATION_ADMIN_ADDRESS: adminOf(w, name),
    MILLRACE_AUTOMATION_ENDPOINT: grpcOf(w, name),
    MILLRACE_AUTOMATION_ENVIRONMENTS: w.outer.MILLRACE_AUTOMATION_ENVIRONMENTS ?? join(REPOSITORY, 'build/environments'),
    MILLRACE_AUTOMATION_STUBS: join(REPOSITORY, 'build/py'),
    MILLRACE_SERVICE_KEYS: w.secrets.serviceKeys,
    MILLRACE_SERVICE_JWKS: w.secrets.serviceJwks,
    OTEL_SERVICE_NAME: `millrace-${name}`,
    ...pick(w.settings, starts('MILLRACE_AUTOMATION_', 'MILLRACE_LOG_', 'OTEL_')),
    ...w.settingsOf[name],
  };
}

// The builder gets no key but its own, and what pip is told by the caller: where libraries come from and whom to trust.
export function builderEnvironment(w: Wiring): Env {
  return {
    ...chosen(w, 'MILLRACE_BUILDER_', 'PIP_'),
    ...pick(w.outer, (name) => PROXIES.includes(name)),
    ...pick(areaUrls(w), (name) => name === 'MILLRACE_AUTOMATIONS_URL'),
    PYTHONPATH: join(REPOSITORY, 'automation'),
    PYTHONUNBUFFERED: '1',
    PYTHONDONTWRITEBYTECODE: '1',
    MILLRACE_BUILDER_ADMIN_ADDRESS: adminOf(w, BUILDER),
    MILLRACE_BUILDER_KEY: join(w.secrets.serviceKeys, 'builder.pem'),
    MILLRACE_AUTOMATION_ENVIRONMENTS: w.outer.MILLRACE_AUTOMATION_ENVIRONMENTS ?? join(REPOSITORY, 'build/environments'),
    MILLRACE_AUTOMATION_STUBS: join(REPOSITORY, 'build/py'),
    ...pick(w.settings, starts('MILLRACE_BUILDER_', 'MILLRACE_LOG_', 'MILLRACE_AUTOMATION_ENVIRONMENTS')),
    ...w.settingsOf[BUILDER],
  };
}

// For the generator of the edge's configuration and for Envoy itself. On one machine reflection and metrics are open unless set otherwise.
export function edgeEnvironment(w: Wiring): Env {
  const identity = hostOf(w, 'identity');
  return {
    MILLRACE_EDGE_REFLECTION: 'true',
    ...(identity ? { MILLRACE_EDGE_METRICS: 'true', MILLRACE_METRICS_ADDRESS: adminOf(w, identity) } : {}),
    ...chosen(w, 'MILLRACE_EDGE_'),
    ...areaUrls(w),
    ...jwksUrl(w),
    MILLRACE_EDGE_ADDRESS: w.edgeAddress,
    MILLRACE_EDGE_ADMIN_ADDRESS: edgeAdmin(w),
    MILLRACE_PUBLIC_URL: w.publicUrl,
    ...pick(w.settings, starts('MILLRACE_EDGE_', 'MILLRACE_LOG_', 'OTEL_')),
    ...w.settingsOf.edge,
  };
}

// A socket that only its owner may use, where its path is short enough for one.
function edgeAdmin(w: Wiring): string {
  const path = join(w.layout.run, 'edge-admin.sock');
  return fitsSocket(path) ? path : adminOf(w, 'edge');
}

// For programs beside the stack, such as tests: everything that they need to join it or to start a process of it again.
export const clientEnvironment = (w: Wiring): Env => ({
  ...stores(w),
  ...areaUrls(w),
  ...jwksUrl(w),
  MILLRACE_PUBLIC_URL: w.publicUrl,
  MILLRACE_SERVICE_KEYS: w.secrets.serviceKeys,
  MILLRACE_SERVICE_JWKS: w.secrets.serviceJwks,
});
