// The whole system in this process, for tests: real database, broker and gRPC, free ports, schemas and streams of its own.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { SignJWT } from 'jose';
import type { DestinationStream } from 'pino';
import { brokerAddress } from '#platform/broker-address.ts';
import { type ClientOf, openDialer } from '#platform/client.ts';
import { type Config, readConfig, readSettings, setting, text } from '#platform/config.ts';
import { type Contract, loadContract } from '#platform/contract.ts';
import { type Knex, openKnex, schemaOf } from '#platform/db.ts';
import type { Definition } from '#platform/handlers.ts';
import { newId } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { migrate } from '#platform/migrate.ts';
import { type Module, pickTargets, type Running, runModules } from '#platform/module.ts';
import { serviceSigner } from '#platform/service-token.ts';
import { modules as all } from '../services/modules.ts';

const SERVICES = [
  'health',
  'identity',
  'tasks',
  'automations',
  'executions',
  'schedules',
  'webhooks',
  'dispatcher',
  'runner',
  'builder',
  'stranger',
];

const { databaseUrl, natsUrl } = readSettings({
  databaseUrl: setting('MILLRACE_TEST_DATABASE_URL', text.default('mysql://root@127.0.0.1:43306/'), 'the database server of tests'),
  natsUrl: setting('MILLRACE_TEST_NATS_URL', text.default('nats://127.0.0.1:44222'), 'the broker of tests'),
});

export interface Person {
  user: string;
  workspace: string;
  scopes: readonly string[];
}
export interface World {
  env: Record<string, string>; // for processes that join this world
  config: Config;
  contract: Contract;
  folder: string; // removed at the end
  grpcAddress: string;
  adminAddress: string;
  logged: () => string; // everything that was logged so far
  db(area: string): Knex; // an area's schema
  person(overrides?: Partial<Person>): Person; // somebody new in a workspace of their own who may do everything
  token(person: Person, overrides?: Record<string, unknown>): Promise<string>; // an access token from the test's own issuer
  as<D extends Definition>(person: Person | string, definition: D, address?: string): ClientOf<D>; // a string is a token to send as it is
  asService<D extends Definition>(service: string, definition: D, actor?: Person, address?: string): ClientOf<D>;
  revoke(subject: string): void; // at the test's own issuer
  restart(targets?: readonly string[]): Promise<void>; // stops the modules in order and starts them again
  stop(): Promise<void>;
}

// Starts the named targets. Unless identity is one of them, tokens come from an issuer of the test.
export async function startWorld(options: {
  targets: readonly string[];
  env?: Record<string, string>;
  modules?: readonly Module[];
}): Promise<World> {
  const modules = options.modules ?? all;
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'));
  const name = `t${randomBytes(5).toString('hex')}`;
  writeServiceKeys(folder);
  const issuer = await startIssuer();
  const env: Record<string, string> = {
    MILLRACE_DATABASE_URL: databaseUrl,
    MILLRACE_DATABASE_PREFIX: name,
    MILLRACE_NATS_URL: natsUrl,
    MILLRACE_NATS_PREFIX: name,
    MILLRACE_PUBLIC_URL: 'http://millrace.test',
    MILLRACE_SERVICE_KEYS: folder,
    MILLRACE_SERVICE_JWKS: join(folder, 'jwks.json'),
    MILLRACE_DRAIN_MS: '0',
    MILLRACE_BLOB_FOLDER: join(folder, 'blobs'),
    MILLRACE_IDENTITY_KEY_SECRET: randomBytes(32).toString('base64'),
    MILLRACE_WEBHOOKS_KEY_SECRET: randomBytes(32).toString('base64'),
    MILLRACE_AUTOMATIONS_SECRET_KEYS: `k1:${randomBytes(32).toString('base64')}`,
    ...(options.targets.includes('identity') || options.targets.includes('all')
      ? {}
      : { MILLRACE_IDENTITY_JWKS_URL: `${issuer.url}/jwks` }),
    ...options.env,
  };
  const lines: string[] = [];
  const sink: DestinationStream = { write: (line) => void lines.push(line) };
  const config = readConfig(env);
  const contract = loadContract(config.imagePath);
  for (const { name: area, migrations } of modules) if (migrations) await migrate(config, { name: area, migrations });

  const open = new Map<string, Knex>();
  const dialers: { close(): void }[] = [];
  const start = (targets: readonly string[]): Promise<Running> =>
    runModules({ modules: pickTargets(modules, targets), config, log: openLog('debug', sink), env });
  let running = await start(options.targets);

  const client = <D extends Definition>(definition: D, address: string, sign: () => Promise<string>): ClientOf<D> => {
    const dialer = openDialer({ contract, sign });
    dialers.push(dialer);
    return dialer.client(definition, address);
  };
  const world: World = {
    env,
    config,
    contract,
    folder,
    get grpcAddress() {
      return running.grpcAddress;
    },
    get adminAddress() {
      return running.adminAddress;
    },
    logged: () => lines.join(''),
    db(area) {
      const known = open.get(area) ?? openKnex(config, schemaOf(config, area), 4);
      open.set(area, known);
      return known;
    },
    person: (overrides) => ({ user: newId('user'), workspace: newId('workspace'), scopes: [...contract.scopesOf('ADMIN')], ...overrides }),
    token: (person, overrides = {}) => issuer.token(env.MILLRACE_PUBLIC_URL ?? '', person, overrides),
    as: (person, definition, address = running.grpcAddress) =>
      client(definition, address, async () => (typeof person === 'string' ? person : issuer.token(env.MILLRACE_PUBLIC_URL ?? '', person))),
    asService(service, definition, actor, address = running.grpcAddress) {
      const sign = serviceSigner(folder, service);
      const dialer = openDialer({ contract, sign: (area) => sign(area, actor) });
      dialers.push(dialer);
      return dialer.client(definition, address);
    },
    revoke: issuer.revoke,
    async restart(targets = options.targets) {
      await running.stop();
      running = await start(targets);
    },
    async stop() {
      await running.stop();
      for (const dialer of dialers) dialer.close();
      for (const knex of open.values()) await knex.destroy();
      await dropSchemas(config, name);
      await dropStreams(name);
      issuer.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return world;
}

// A key pair for each service, as the launcher makes them.
export function writeServiceKeys(folder: string, services: readonly string[] = SERVICES): void {
  const keys = services.map((kid) => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    writeFileSync(join(folder, `${kid}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    return { ...publicKey.export({ format: 'jwk' }), kid, alg: 'EdDSA', use: 'sig' };
  });
  writeFileSync(join(folder, 'jwks.json'), JSON.stringify({ keys }));
}

// An issuer of access tokens at the edge of the machine, like an identity provider.
async function startIssuer() {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const jwks = JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'test', alg: 'EdDSA', use: 'sig' }] });
  const revocations: { subject: string; issuedBefore: number; expire: number }[] = [];
  const now = () => Math.floor(Date.now() / 1000);
  const server = createServer((request, response) => {
    const body = request.url?.startsWith('/revocations') ? JSON.stringify({ revocations, now: now() }) : jwks;
    response.writeHead(200, { 'content-type': 'application/json' }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: (iss: string, person: Person, overrides: Record<string, unknown> = {}) =>
      new SignJWT({
        wsp: person.workspace,
        sid: `ses_${person.user.slice(4)}`,
        scope: person.scopes.join(' '),
        iss,
        aud: 'millrace',
        sub: person.user,
        iat: now(),
        exp: now() + 900,
        ...overrides,
      })
        .setProtectedHeader({ alg: 'EdDSA', kid: 'test', typ: 'at+jwt' })
        .sign(privateKey),
    revoke: (subject: string) => void revocations.push({ subject, issuedBefore: now(), expire: now() + 900 }),
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function dropSchemas(config: Config, prefix: string): Promise<void> {
  const knex = openKnex(config, undefined, 1);
  const [rows] = await knex.raw('SELECT schema_name AS name FROM information_schema.schemata WHERE schema_name LIKE ?', [`${prefix}\\_%`]);
  for (const { name } of rows) await knex.raw('DROP DATABASE IF EXISTS ??', [name]);
  await knex.destroy();
}

async function dropStreams(prefix: string): Promise<void> {
  const connection = await connect(brokerAddress(natsUrl));
  const { streams } = await jetstreamManager(connection);
  for (const stream of [`${prefix}_EVENTS`, `${prefix}_WORK`, `KV_${prefix}_revocations`])
    await streams.delete(stream).catch(() => undefined);
  await connection.close();
}

// Waits until the probe answers something true; says what it waited for when it does not.
export async function until<T>(what: string, probe: () => Promise<T> | T, patienceMs = 10_000): Promise<NonNullable<T>> {
  const end = performance.now() + patienceMs;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (performance.now() > end) throw new Error(`waited ${patienceMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
