// The environment variables of every part, as a section of docs/OPERATIONS.md. What services and the edge read comes from their schemas; what the
// launcher and the automation server read is described here, and a test compares the names with their code.
// `node scripts/settings.ts` writes the section anew, `--print` shows the document as it should be.
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { allSettings, type Setting } from '#platform/config.ts';

type Row = [name: string, otherwise: string, meaning: string];

// A setting is known once the file that declares it is loaded.
for (const file of globSync('{services,envoy}/**/*.ts').sort())
  if (!file.endsWith('.test.ts') && /\bsetting\(/.test(readFileSync(file, 'utf8'))) await import(`../${file}`);

const HEAD = '## Settings\n';
const FILE = 'docs/OPERATIONS.md';
const SET = 'must be set';
const NONE = 'none';

// What the launcher itself reads (deploy/local). It computes what its parts need; what is set for a part by its own variable is passed on.
export const LAUNCHER: readonly Row[] = [
  ['MILLRACE_HOME', '.millrace', 'the folder of the installation: data, secrets, logs'],

  [
    'MILLRACE_PARTS',
    'all',
    'the parts to start, separated by commas: database, broker, services or a process of them, automation, builder, edge',
  ],
  ['MILLRACE_DATABASE_URL', 'a server of its own', 'the database server to use, mysql://user:password@host:port/'],
  ['MILLRACE_DATABASE_PREFIX', 'millrace', 'schemas are <prefix>_<area>'],
  ['MILLRACE_NATS_URL', 'a server of its own', 'the broker to use, nats://user:password@host:port, separated by commas'],
  ['MILLRACE_NATS_PREFIX', 'millrace', 'subjects and streams begin with it'],
  ['MILLRACE_RUNNER_URL', 'a server of its own', 'an automation server that runs elsewhere, host:port'],
  ['MILLRACE_EDGE_ADDRESS', '127.0.0.1:8000, or the next free port', 'the public listener'],
  ['MILLRACE_PUBLIC_URL', 'http://localhost:<port>', 'the address that users see'],
  ['MILLRACE_IDENTITY_ADMIN_EMAIL', 'admin@millrace.local', 'the first administrator'],
  ['MILLRACE_IDENTITY_ADMIN_PASSWORD_FILE', 'below secrets/', 'the file with the password of the first administrator'],
  ['MILLRACE_AUTOMATION_ENVIRONMENTS', 'build/environments', 'the folder with the libraries that scripts may import'],
  ['MILLRACE_NODE', 'the one that runs the launcher', 'the path of Node 24'],
  ['MILLRACE_PYTHON', '.venv/bin/python', 'the path of Python 3.11 or newer, with automation/requirements.txt installed'],
  ['MILLRACE_MARIADBD', 'from PATH', 'the path of mariadbd'],
  ['MILLRACE_NATS_SERVER', '.venv/bin/nats-server', 'the path of nats-server'],
  ['MILLRACE_ENVOY', '.venv/bin/envoy', 'the path of envoy'],
];

// What the automation server reads (automation/millrace_automation/server/settings.py).
export const AUTOMATION: readonly Row[] = [
  ['MILLRACE_AUTOMATION_ADDRESS', '127.0.0.1:0', 'where it answers gRPC, host:port; port 0 means a free one'],
  ['MILLRACE_AUTOMATION_ADMIN_ADDRESS', '127.0.0.1:0', 'where it answers /livez, /readyz and /metrics'],
  ['MILLRACE_AUTOMATION_ENDPOINT', 'the address', 'where dispatchers reach it, host:port'],
  ['MILLRACE_AUTOMATION_SLOTS', '16', 'how many executions it runs at once'],
  ['MILLRACE_AUTOMATION_PREPARED', 'the slots, at most 8', 'how many sandboxed processes wait ahead of demand'],
  ['MILLRACE_AUTOMATION_PARKED', 'the slots', 'how many processes that ran a script are kept for its next run'],
  ['MILLRACE_AUTOMATION_REUSE_RUNS', '1000', 'after how many runs a kept process is replaced'],
  ['MILLRACE_AUTOMATION_REUSE_SECONDS', '600', 'how old a kept process may become'],
  ['MILLRACE_AUTOMATION_REUSE_IDLE_SECONDS', '60', 'how long a kept process waits for a run'],
  ['MILLRACE_AUTOMATION_RESERVE_MIB', '256', 'kept processes are given up when the machine has less memory than this'],
  ['MILLRACE_AUTOMATION_SANDBOX_MIN_TIER', '1', 'the lowest tier of the sandbox that it runs scripts with; below it, it is not ready'],
  ['MILLRACE_AUTOMATION_ENVIRONMENTS', 'build/environments', 'the folder with the libraries that scripts may import'],
  [
    'MILLRACE_AUTOMATION_EGRESS_ALLOW',
    NONE,
    'inner networks that rules of egress policies may lead to, such as 10.1.0.0/16, separated by commas',
  ],
  ['MILLRACE_AUTOMATION_LABELS', NONE, 'what it tells of itself, such as zone=a,gpu=no'],
  ['MILLRACE_AUTOMATION_ORPHAN_SECONDS', '60', 'after how long without a dispatcher its jobs are stopped'],
  ['MILLRACE_AUTOMATION_DRAIN_SECONDS', '30', 'how long jobs may go on after SIGTERM'],
  ['MILLRACE_AUTOMATION_STUBS', 'build/py', 'the folder with the Python stubs of the contracts'],
  ['MILLRACE_EXECUTIONS_URL', NONE, 'where it registers, host:port; none: it runs alone'],
  ['MILLRACE_SERVICE_KEYS', 'needed to register', 'the folder with runner.pem'],
  ['MILLRACE_SERVICE_JWKS', SET, 'the file with the public keys of all services'],
  ['MILLRACE_LOG_LEVEL', 'info', 'the lowest level that is logged'],
];

// What the builder of environments reads (automation/millrace_automation/builder/settings.py).
export const BUILDER: readonly Row[] = [
  ['MILLRACE_AUTOMATIONS_URL', SET, 'where builds come from, host:port'],
  ['MILLRACE_BUILDER_ADMIN_ADDRESS', '127.0.0.1:0', 'where it answers /livez, /readyz and /metrics'],
  ['MILLRACE_BUILDER_KEY', SET, 'the file with its private key, builder.pem; it needs no other'],
  ['MILLRACE_BUILDER_INDEX_URL', "pip's own configuration", 'the only index that libraries are fetched from'],
  ['MILLRACE_BUILDER_SECONDS', '900', 'the longest time that a build may take'],
  ['MILLRACE_BUILDER_SIZE_MIB', '2048', 'the largest environment'],
  ['MILLRACE_AUTOMATION_ENVIRONMENTS', 'build/environments', 'the folder that the automation servers read'],
  ['MILLRACE_AUTOMATION_STUBS', 'build/py', 'the folder with the Python stubs of the contracts'],
  ['MILLRACE_LOG_LEVEL', 'info', 'the lowest level that is logged'],
];

const TESTS: readonly Row[] = [
  ['MILLRACE_TEST_DATABASE_URL', 'by make test', 'the database server of tests'],
  ['MILLRACE_TEST_NATS_URL', 'by make test', 'the broker of tests'],
  ['MILLRACE_TEST_S3', 'one of their own', 'an object store for tests, http://access-key:secret@host:port'],
  ['MILLRACE_TEST_LONG', '0', '1: tests at length, as make test-long'],
  ['MILLRACE_TEST_REPORT', NONE, 'the file that mocha writes its numbers to'],
  ['MILLRACE_TEST_ENVIRONMENTS', 'built anew', 'the libraries for scripts, for the tests of the sandbox'],
  ['MILLRACE_TEST_TIER', '2', 'the tier that the tests of the sandbox expect'],
  ['MILLRACE_FAILPOINT', NONE, 'a place in the code to fail at'],
];

const rowOf = ({ name, schema, doc }: Setting<unknown>): Row => [name, otherwise(schema), doc];

function otherwise(schema: Setting<unknown>['schema']): string {
  const { success, data } = schema.safeParse(undefined);
  if (!success) return SET;
  return data === undefined || (Array.isArray(data) && data.length === 0) ? NONE : String(data);
}

const shown = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('*', '\\*');

const isEdge = ({ name }: { name: string }) => /^MILLRACE_(EDGE_|METRICS_ADDRESS|ENVOY)/.test(name);

function settingsSection(): string {
  const ours = allSettings()
    .filter(({ name }) => name.startsWith('MILLRACE_') && !TESTS.some(([known]) => known === name))
    .sort((one, other) => one.name.localeCompare(other.name, 'en'));
  const parts: [string, readonly Row[]][] = [
    ['The launcher', LAUNCHER],
    ['Processes of services', ours.filter((one) => !isEdge(one)).map(rowOf)],
    ['The edge', ours.filter(isEdge).map(rowOf)],
    ['The automation server', AUTOMATION],
    ['The builder of environments', BUILDER],
    ['Tests', TESTS],
  ];
  const lines = parts.flatMap(([title, rows]) => [
    `\n### ${title}\n`,
    '| Variable | Unless set | Meaning |',
    '|---|---|---|',
    ...rows.map(([name, value, meaning]) => `| \`${name}\` | ${shown(value)} | ${shown(meaning)} |`),
  ]);
  const above =
    'Those of services and of the edge may be given as `<NAME>_FILE`, a file that holds the value. The standard `OTEL_*` variables count everywhere.';
  return `${HEAD}\n${above}\n${lines.join('\n')}\n`;
}

// The document with the section in the place of the present one, at its end.
function withSettings(text: string): string {
  const at = text.indexOf(HEAD);
  return `${(at < 0 ? text : text.slice(0, at)).trimEnd()}\n\n${settingsSection()}`;
}

if (import.meta.main) {
  const text = withSettings(readFileSync(FILE, 'utf8'));
  if (process.argv.includes('--print')) process.stdout.write(text);
  else writeFileSync(FILE, text);
}
