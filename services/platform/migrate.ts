// Migrations: every schema gets the platform's tables, then its own. One at a time over all processes, by GET_LOCK.
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Knex } from 'knex';
import type { Config } from './config.ts';
import { openKnex, schemaOf } from './db.ts';

interface Step {
  name: string;
  file: string;
}
export interface Migrated {
  name: string;
  migrations: URL;
}

const PLATFORM = new URL('./migrations/', import.meta.url);
const LOCK_SECONDS = 60;

const steps = (folder: URL, prefix = ''): Step[] =>
  readdirSync(fileURLToPath(folder))
    .filter((name) => /^\d{4}-.*\.ts$/.test(name))
    .sort()
    .map((name) => ({ name: prefix + name, file: new URL(name, folder).href }));

const source = (folder: URL): Knex.MigrationSource<Step> => ({
  getMigrations: async () => [...steps(PLATFORM, 'platform-'), ...steps(folder)],
  getMigrationName: (step) => step.name,
  getMigration: async (step) => (await import(step.file)) as Knex.Migration,
});

type Settings = Pick<Config, 'databaseUrl' | 'databasePrefix' | 'databaseConnections'>;

async function locked<T>(config: Settings, area: string, work: (knex: Knex) => Promise<T>): Promise<T> {
  const schema = schemaOf(config, area);
  const server = openKnex(config, undefined, 1);
  try {
    await server.raw('CREATE DATABASE IF NOT EXISTS ?? COLLATE utf8mb4_unicode_520_ci', [schema]);
    const [[row]] = await server.raw('SELECT GET_LOCK(?, ?) AS got', [`migrate ${schema}`, LOCK_SECONDS]);
    if (row.got !== 1) throw new Error(`another process has been migrating ${schema} for ${LOCK_SECONDS} s: wait for it, or end it`);
    const knex = openKnex(config, schema, 2);
    try {
      return await work(knex);
    } finally {
      await knex.destroy();
    }
  } finally {
    await server.destroy(); // releases the lock
  }
}

const settings = (area: Migrated): Knex.MigratorConfig => ({
  migrationSource: source(area.migrations),
  disableTransactions: true,
  tableName: 'migrations',
});

// Brings an area's schema up to date; answers the names of the steps that were taken.
export const migrate = (config: Settings, area: Migrated): Promise<string[]> =>
  locked(config, area.name, async (knex) => {
    await knex.migrate.forceFreeMigrationsLock(settings(area)); // GET_LOCK is ours: a lock row is left over from a killed process
    const [, names] = await knex.migrate.latest(settings(area));
    return names;
  });

// Takes the last step back.
export const rollback = (config: Settings, area: Migrated): Promise<string[]> =>
  locked(config, area.name, async (knex) => {
    await knex.migrate.forceFreeMigrationsLock(settings(area));
    const [, names] = await knex.migrate.down(settings(area));
    return names;
  });

// The steps that are still to be taken: a service refuses to start while there are some.
export async function pending(knex: Knex, area: Migrated): Promise<string[]> {
  const [, open] = await knex.migrate.list(settings(area));
  return open.map((step: Step) => step.name);
}
