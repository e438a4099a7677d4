// Runs modules in one process: opens what they share, starts each, and stops everything in order.
import type { Knex } from 'knex';
import { EventLetterServiceService } from '#gen/millrace/executions/v1/event_letter_service.ts';
import { type Admin, type Answer, openAdmin } from './admin.ts';
import { openAuth } from './auth.ts';
import { type Bus, openBus } from './bus.ts';
import { type ClientOf, openDialer } from './client.ts';
import { type Config, type Rule, readSettings, type Settings, type Values } from './config.ts';
import { type Consumer, consume } from './consumer.ts';
import { type Contract, loadContract } from './contract.ts';
import { openKnex, openPool, type Pool, schemaOf } from './db.ts';
import { openLetters } from './dead-letter.ts';
import { sweep } from './dead-letter-store.ts';
import { isEventLoopFree } from './event-loop.ts';
import { isDatabaseAway } from './faults.ts';
import type { Definition, Handlers } from './handlers.ts';
import { type Health, openHealth } from './health.ts';
import { sweepKeys } from './idempotency.ts';
import type { Logger } from './log.ts';
import { collectProcess } from './metrics.ts';
import { type Migrated, pending } from './migrate.ts';
import { openRelay, type Relay } from './outbox.ts';
import { every, pause } from './pause.ts';
import { addReflection } from './reflection.ts';
import { openRevocations } from './revocation.ts';
import { openServer } from './server.ts';
import { serviceSigner } from './service-token.ts';
import { openValidator } from './validate.ts';

export interface Module {
  name: string;
  schema?: string; // the area whose schema it uses; its own name when it has migrations
  migrations?: URL; // the folder of its schema's migrations
  start(platform: Platform): Promise<() => Promise<void>>; // resolves to what stops it
}
export interface Platform {
  name: string;
  config: Config;
  contract: Contract;
  log: Logger;
  db: Knex;
  bus: Bus & { consume(consumer: Consumer): () => Promise<void> };
  relay: Pick<Relay, 'kick'>; // after a commit that emitSql wrote to
  clock: () => Date;
  settings<S extends Settings>(settings: S, rules?: readonly Rule[]): Values<S>;
  hot(connections: number): Pool;
  serve<D extends Definition>(definition: D, handlers: Handlers<D>): void;
  client<D extends Definition>(definition: D, area: string): ClientOf<D>;
  address(area: string): string; // where the area answers gRPC, host:port
  clientAt<D extends Definition>(definition: D, address: string): ClientOf<D>;
  admin(path: string, answer: (url: URL) => Promise<Answer>): void;
  check(name: string, probe: () => Promise<void>): void;
  fail(error: unknown): void;
}
export interface Running {
  grpcAddress: string;
  adminAddress: string;
  failed: Promise<never>; // rejects when a module cannot go on
  stop(): Promise<void>;
}
interface Options {
  modules: readonly Module[];
  config: Config;
  log: Logger;
  env?: Record<string, string | undefined>;
}

interface Store {
  db: Knex;
  relay: Relay;
}
interface StoreOptions {
  schema: string;
  modules: readonly Module[];
  config: Config;
  bus: Bus;
  log: Logger;
  stops: (() => Promise<unknown> | unknown)[];
}

const SWEEP_MS = 10 * 60_000;

export class StartFault extends Error {
  override readonly name = 'StartFault';
}

// The modules that a list of targets names.
export function pickTargets(all: readonly Module[], targets: readonly string[]): Module[] {
  const unknown = targets.find((target) => target !== 'all' && !all.some((module) => module.name === target));
  if (unknown !== undefined || targets.length === 0) {
    throw new StartFault(
      `${unknown === undefined ? 'no target is named' : `there is no target ${unknown}`}: choose from all, ${all.map((m) => m.name).join(', ')}`,
    );
  }
  return targets.includes('all') ? [...all] : all.filter((module) => targets.includes(module.name));
}

export async function runModules({ modules, config, log, env = process.env }: Options): Promise<Running> {
  collectProcess();
  const contract = loadContract(config.imagePath);
  const validator = openValidator(contract);
  const stops: (() => Promise<unknown> | unknown)[] = []; // taken from the end
  const workers: (() => Promise<unknown> | unknown)[] = [];
  let drain: () => Promise<unknown> = async () => undefined;
  const all = () => [...stops, () => drain(), ...workers]; // what answers stops before what it answers from
  let fail: (error: unknown) => void = () => undefined;
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => undefined); // also told through the log

  try {
    let health: Health | undefined;
    const admin = await openAdmin(config.adminAddress, () => health as Health, log);
    stops.push(() => admin.stop());
    const bus = openBus(config, log);
    stops.push(() => bus.stop());
    const jwksUrl = config.identityJwksUrl ?? ownJwks(modules, admin);
    const revocations = openRevocations({ bus, url: new URL('revocations', jwksUrl).href, log });
    stops.push(() => revocations.stop());
    const authenticate = openAuth({ issuer: config.publicUrl, jwksUrl, serviceJwks: config.serviceJwks, revocations });
    const server = openServer({ contract, validator, authenticate, log });
    health = openHealth(server.raw);
    const served: string[] = ['grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'];
    addReflection(server.raw, contract, () => served);
    const grpcAddress = await server.listen(config.grpcAddress);
    stops.push(() => health?.stop());
    drain = () => server.stop();
    health.check('', 'broker', () => bus.state());
    health.check('', 'event-loop', isEventLoopFree);
    if (modules.some((module) => module.name !== 'dispatcher')) health.check('', 'revocations', () => revocations.state());

    const stores = new Map<string, Store>();
    const own = new Set(modules.map((module) => module.name));
    const letters = openLetters({ contract, dbOf: (area) => stores.get(area)?.db });
    server.add(EventLetterServiceService, letters.handlers);
    served.push('millrace.executions.v1.EventLetterService');
    for (const module of modules) {
      const moduleLog = log.child({ module: module.name });
      const sign = serviceSigner(config.serviceKeys, module.name);
      const dialer = openDialer({ contract, sign });
      stops.push(() => dialer.close());
      const schema = module.schema ?? (module.migrations ? module.name : undefined);
      const store = schema ? (stores.get(schema) ?? (await openStore({ schema, modules, config, bus, log: moduleLog, stops }))) : undefined;
      if (schema && store) stores.set(schema, store);
      if (store) health.check(module.name, 'database', async () => void (await store.db.raw('SELECT 1')));
      const platform: Platform = {
        name: module.name,
        config,
        contract,
        log: moduleLog,
        get db() {
          if (!store) throw new Error(`module ${module.name} has no schema`);
          return store.db;
        },
        bus: {
          ...bus,
          consume(consumer) {
            if (schema) letters.know(schema, consumer);
            return consume(bus, moduleLog, consumer);
          },
        },
        relay: { kick: () => store?.relay.kick() },
        clock: () => new Date(),
        settings: (settings, rules) => readSettings(settings, env, rules),
        hot(connections) {
          if (!schema) throw new Error(`module ${module.name} has no schema`);
          const pool = openPool(config, schemaOf(config, schema), connections);
          stops.push(() => pool.end());
          return pool;
        },
        serve(definition, handlers) {
          server.add(definition, handlers);
          for (const service of new Set(Object.values(definition).map((entry) => entry.path.split('/')[1] ?? ''))) {
            served.push(service);
            health?.serves(service, module.name);
          }
        },
        address: (area) => addressOf(config, area, own, grpcAddress),
        client: (definition, area) => dialer.client(definition, addressOf(config, area, own, grpcAddress)),
        clientAt: (definition, address) => dialer.client(definition, address),
        admin: admin.add,
        check: (name, probe) => health?.check(module.name, name, probe),
        fail(error) {
          moduleLog.fatal({ error }, 'the module cannot go on');
          fail(error);
        },
      };
      workers.push(await module.start(platform));
      moduleLog.info('module started');
    }
    server.started();
    validator.warmUp(served);
    await health.refresh();
    log.info({ grpcAddress, adminAddress: admin.address, modules: modules.map((module) => module.name) }, 'ready');
    return { grpcAddress, adminAddress: admin.address, failed, stop: () => stopAll(all(), log, health as Health, config.drainMs) };
  } catch (error) {
    await stopAll(all(), log);
    throw error;
  }
}

// Not ready, wait until balancers have seen it, workers finish, the server drains, then relay, broker and database.
async function stopAll(stops: (() => Promise<unknown> | unknown)[], log: Logger, health?: Health, drainMs = 0): Promise<void> {
  health?.drain();
  await pause(drainMs);
  for (const stop of stops.splice(0).reverse()) {
    await Promise.resolve()
      .then(stop)
      .catch((error) => log.warn({ error }, 'a part did not stop in order'));
  }
}

// A schema is opened once for all modules of the process that use it, with its relay.
async function openStore({ schema, modules, config, bus, log, stops }: StoreOptions): Promise<Store> {
  const db = openKnex(config, schemaOf(config, schema));
  stops.push(() => db.destroy());
  const migrations = modules.find((module) => module.name === schema)?.migrations;
  if (migrations) await upToDate(db, { name: schema, migrations }, config, log);
  const pool = openPool(config, schemaOf(config, schema), 1);
  stops.push(() => pool.end());
  const relay = openRelay({ db, pool, bus, area: schema, log });
  stops.push(() => relay.stop());
  if (migrations)
    stops.push(
      every(SWEEP_MS, () => sweepKeys(db), log),
      every(SWEEP_MS, () => sweep(db), log),
    );
  return { db, relay };
}

async function upToDate(db: Knex, area: Migrated, config: Config, log: Logger): Promise<void> {
  const schema = schemaOf(config, area.name);
  for (let said = false; ; said = true) {
    try {
      const missing = await pending(db, area);
      if (missing.length === 0) return;
      throw new StartFault(`the schema ${schema} lacks ${missing.join(', ')}: run make migrate`);
    } catch (error) {
      if ((error as { code?: string }).code === 'ER_BAD_DB_ERROR') throw new StartFault(`there is no schema ${schema}: run make migrate`);
      if (!isDatabaseAway(error)) throw error;
      if (!said) log.warn({ error }, 'waiting for the database');
      await pause(250);
    }
  }
}

function addressOf(config: Config, area: string, own: ReadonlySet<string>, grpcAddress: string): string {
  const given = config.areas[area as keyof Config['areas']];
  if (given) return given;
  if (own.has(area)) return grpcAddress;
  throw new StartFault(
    `MILLRACE_${area.toUpperCase()}_URL is not set: name the host:port where the ${area} area answers gRPC, or run that target here`,
  );
}

function ownJwks(modules: readonly Module[], admin: Admin): string {
  if (modules.some((module) => module.name === 'identity')) return `http://${admin.address}/jwks`;
  throw new StartFault('MILLRACE_IDENTITY_JWKS_URL is not set: name where identity shows its public keys, http://<its admin address>/jwks');
}
