// A whole stack for chaos: two dispatchers, two automation servers, a link to cut between any two parts, a small disk where the machine
// allows it, and leases short enough that a stop of seconds outlasts them.
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { brokerUrl } from '../../deploy/local/broker.ts';
import { databaseUrl } from '../../deploy/local/database.ts';
import { AREAS, type Env } from '../../deploy/local/environment.ts';
import { layoutOf, makeFolders, REPOSITORY } from '../../deploy/local/layout.ts';
import { keepPorts } from '../../deploy/local/ports.ts';
import { makeSecrets } from '../../deploy/local/secrets.ts';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import { type Disk, makeDisk, whyNoDisk } from './disk.ts';
import { type Link, openLink } from './link.ts';
import type { LinkName } from './plan.ts';

export interface Rig {
  stack: Stack;
  links: Record<LinkName, Link>;
  disk: Disk | undefined; // of database and broker; undefined: the machine does not allow it
  whyNoDisk: string;
  again(): Promise<void>; // starts the stack once more, after it was stopped
  stop(): Promise<void>;
}

const PROCESSES = {
  api: ['health', 'identity', 'tasks', 'automations', 'executions', 'schedules', 'webhooks'],
  dispatcher: ['dispatcher'],
  'dispatcher-2': ['dispatcher'],
};
const DISPATCHERS = ['dispatcher', 'dispatcher-2'] as const;
const AUTOMATIONS = ['automation', 'automation-2'] as const;
const DISK_MIB = 1024;
const SETTINGS = {
  MILLRACE_EDGE_RATE_SCALE: '0',
  MILLRACE_DRAIN_MS: '200',
  MILLRACE_DISPATCHER_LEASE_MS: '3000',
  MILLRACE_DISPATCHER_SERVER_LEASE_MS: '6000',
  MILLRACE_DISPATCHER_TICK_MS: '500',
  MILLRACE_EXECUTIONS_RECONCILE_MS: '5000',
};

export async function startRig(say: (line: string) => void = () => undefined): Promise<Rig> {
  const root = join(REPOSITORY, 'build/stacks', `${process.pid}-chaos-${randomBytes(3).toString('hex')}`);
  const layout = layoutOf(root);
  mkdirSync(root, { recursive: true });
  makeFolders(layout);
  const why = whyNoDisk();
  const disk = why === '' ? makeDisk(layout.data, join(root, 'disk.img'), DISK_MIB) : undefined;
  const secrets = makeSecrets(layout.secrets);
  const ports = await keepPorts(layout.state, ['database', 'broker', 'api.grpc', ...AUTOMATIONS.map((name) => `${name}.grpc`)]);
  const to = (name: string) => openLink(ports[name] ?? 0);
  const links: Record<LinkName, Link> = {
    'api-database': await to('database'),
    'dispatcher-database': await to('database'),
    'dispatcher-2-database': await to('database'),
    'api-broker': await to('broker'),
    'dispatcher-broker': await to('broker'),
    'dispatcher-2-broker': await to('broker'),
    'dispatcher-api': await to('api.grpc'),
    'dispatcher-2-api': await to('api.grpc'),
    'automation-api': await to('api.grpc'),
    'automation-2-api': await to('api.grpc'),
    'dispatchers-automation': await to('automation.grpc'),
    'dispatchers-automation-2': await to('automation-2.grpc'),
    'edge-api': await to('api.grpc'),
  };
  const at = (link: LinkName) => `127.0.0.1:${links[link].port}`;
  const areas = (link: LinkName): Env => Object.fromEntries(AREAS.map((area) => [`MILLRACE_${area.toUpperCase()}_URL`, at(link)]));
  const stores = (part: 'api' | (typeof DISPATCHERS)[number]): Env => ({
    MILLRACE_DATABASE_URL: databaseUrl(links[`${part}-database`].port, secrets.databasePassword),
    MILLRACE_NATS_URL: brokerUrl(links[`${part}-broker`].port, secrets.brokerPassword),
  });
  const settingsOf: Record<string, Env> = { api: stores('api'), edge: areas('edge-api') };
  for (const name of DISPATCHERS) settingsOf[name] = { ...stores(name), ...areas(`${name}-api`) };
  for (const name of AUTOMATIONS)
    settingsOf[name] = { MILLRACE_EXECUTIONS_URL: at(`${name}-api`), MILLRACE_AUTOMATION_ENDPOINT: at(`dispatchers-${name}`) };
  const open = () =>
    startStack({ dataDir: root, processes: PROCESSES, automations: AUTOMATIONS.length, settings: SETTINGS, settingsOf, say });
  const close = () => {
    for (const link of Object.values(links)) link.stop();
    disk?.remove();
    rmSync(root, { recursive: true, force: true });
  };
  const rig: Rig = {
    stack: await open().catch((error) => {
      close();
      throw error;
    }),
    links,
    disk,
    whyNoDisk: why,
    async again() {
      rig.stack = await open();
    },
    async stop() {
      await rig.stack.stop();
      close();
    },
  };
  return rig;
}
