// Decides everything before the first part starts: folders, secrets, ports, addresses, and which parts there are.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { brokerPart, brokerUrl } from './broker.ts';
import { databasePart, databaseUrl } from './database.ts';
import { BUILDER, type Choices, PROCESSES, readChoices, type Wiring } from './environment.ts';
import { StartFault } from './faults.ts';
import { type Layout, layoutOf, makeFolders, REPOSITORY } from './layout.ts';
import type { Part } from './part.ts';
import { isFree, keepPorts } from './ports.ts';
import { isAlive } from './process-table.ts';
import { automationPart, builderPart, edgePart, servicePart } from './programs.ts';
import { makeSecrets } from './secrets.ts';
import type { StackOptions } from './stack.ts';

const STACKS = join(REPOSITORY, 'build/stacks');
const NEEDED_MIB = 512;

export async function wire(options: StackOptions): Promise<Wiring> {
  const outer = options.outer ?? process.env;
  const choices = readChoices(outer);
  const layout = layoutOf(options.dataDir ?? newFolder());
  makeFolders(layout);
  checkSpace(layout.root);
  const secrets = makeSecrets(layout.secrets);
  const processes = options.processes ?? PROCESSES;
  const automations = namesOf('automation', options.automations ?? 1);
  const ports = await keepPorts(layout.state, portNames(Object.keys(processes), automations, options.edgeAddress === undefined));
  const edgeAddress = options.edgeAddress ?? `127.0.0.1:${ports.edge}`;
  const own = `t${randomBytes(5).toString('hex')}`; // nobody else's schemas and streams, should the servers be shared
  const prefix = options.dataDir === undefined ? own : 'millrace';
  return {
    layout,
    secrets,
    choices,
    outer,
    settings: options.settings ?? {},
    settingsOf: options.settingsOf ?? {},
    ports,
    processes,
    automations,
    databaseUrl: choices.databaseUrl ?? databaseUrl(ports.database ?? 0, secrets.databasePassword, mysqlFolder(layout)),
    databasePrefix: options.databasePrefix ?? outer.MILLRACE_DATABASE_PREFIX ?? prefix,
    natsUrl: choices.natsUrl ?? brokerUrl(ports.broker ?? 0, secrets.brokerPassword),
    natsPrefix: options.natsPrefix ?? outer.MILLRACE_NATS_PREFIX ?? prefix,
    edgeAddress,
    publicUrl: options.publicUrl ?? `http://localhost:${edgeAddress.slice(edgeAddress.lastIndexOf(':') + 1)}`,
  };
}

const namesOf = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => (i === 0 ? name : `${name}-${i + 1}`));

const portNames = (processes: readonly string[], automations: readonly string[], edge: boolean): string[] => [
  'database',
  'broker',
  'broker.admin',
  'edge.admin',
  `${BUILDER}.admin`,
  ...(edge ? ['edge'] : []),
  ...[...processes, ...automations].flatMap((name) => [`${name}.grpc`, `${name}.admin`]),
];

// A folder of a test's own. What earlier tests left when they were killed is removed.
function newFolder(): string {
  mkdirSync(STACKS, { recursive: true });
  for (const name of readdirSync(STACKS)) {
    if (!isAlive(Number(name.split('-')[0]))) rmSync(join(STACKS, name), { recursive: true, force: true });
  }
  const folder = join(STACKS, `${process.pid}-${randomBytes(3).toString('hex')}`);
  mkdirSync(folder);
  return folder;
}

function checkSpace(folder: string): void {
  const { bavail, bsize } = statfsSync(folder);
  const free = Math.floor((bavail * bsize) / 2 ** 20);
  if (free < NEEDED_MIB)
    throw new StartFault(
      `the disk of ${folder} is full: ${free} MiB are free, ${NEEDED_MIB} are needed`,
      'make room, or set MILLRACE_HOME to a folder on another disk',
    );
}

// Where the edge listens: as the caller says, else the first free port from 8000 on.
export async function chosenEdge(choices: Choices): Promise<string | undefined> {
  const given = choices.edgeAddress;
  if (!given) return undefined;
  const port = Number(given.slice(given.lastIndexOf(':') + 1));
  if (!/^\S+:\d+$/.test(given) || port < 1 || port > 65_535)
    throw new StartFault(`MILLRACE_EDGE_ADDRESS is not host:port: ${given}`, 'set it to 127.0.0.1:8000, or unset it');
  if (!(await isFree(port)))
    throw new StartFault(
      `port ${port} (MILLRACE_EDGE_ADDRESS) is taken`,
      'end the program that listens there, name another port, or unset it to get a free one',
    );
  return given;
}

// The parts in two groups: what keeps state, then what uses it. Those replaced by a URL are left out.
const mysqlFolder = (layout: Layout): string => join(layout.data, 'mysql');

export function partsOf(w: Wiring, wanted: readonly string[] | undefined = w.choices.parts): [Part[], Part[]] {
  const isWanted = (...names: string[]) => wanted === undefined || names.some((name) => wanted.includes(name));
  const log = (name: string) => join(w.layout.logs, `${name}.log`);
  const stores: Part[] = [];
  if (isWanted('database') && !w.choices.databaseUrl) {
    stores.push(
      databasePart({
        folder: mysqlFolder(w.layout),
        initFile: join(w.layout.run, 'accounts.sql'),
        log: log('database'),
        port: w.ports.database ?? 0,
        password: w.secrets.databasePassword,
        given: w.choices.mariadbd,
        outer: w.outer,
      }),
    );
  }
  if (isWanted('broker') && !w.choices.natsUrl) {
    stores.push(
      brokerPart({
        command: w.choices.natsServer,
        folder: join(w.layout.data, 'nats'),
        config: join(w.layout.run, 'nats.conf'),
        port: w.ports.broker ?? 0,
        adminPort: w.ports['broker.admin'] ?? 0,
        password: w.secrets.brokerPassword,
        outer: w.outer,
      }),
    );
  }
  const services = Object.keys(w.processes).filter((name) => isWanted('services', name));
  const automations = w.choices.runnerUrl ? [] : w.automations.filter((name) => isWanted('automation', name));
  return [
    stores,
    [
      ...services.map((name) => servicePart(w, name)),
      ...automations.map((name) => automationPart(w, name)),
      ...(automations.length > 0 && isWanted(BUILDER, 'automation') ? [builderPart(w)] : []),
      ...(isWanted('edge') ? [edgePart(w, log('edge'))] : []),
    ],
  ];
}
