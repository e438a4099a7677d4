// Migrations from the command line: `up` brings every schema up to date, `down <area>` takes one step back, `new <area> <name>` begins a file.
import { readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { platformSettings, readSettings } from '#platform/config.ts';
import { type Migrated, migrate, rollback } from '#platform/migrate.ts';
import { modules } from './modules.ts';

const areas: Migrated[] = modules.flatMap(({ name, migrations }) => (migrations ? [{ name, migrations }] : []));

function areaOf(name: string | undefined): Migrated {
  const area = areas.find((one) => one.name === name);
  if (!area) throw new Error(`name an area with a schema: ${areas.map((one) => one.name).join(', ')}`);
  return area;
}

function begin(area: Migrated, name: string | undefined): string {
  if (!name || !/^[a-z0-9-]+$/.test(name)) throw new Error('name the migration in lower-case letters, digits and dashes');
  const last = readdirSync(fileURLToPath(area.migrations)).sort().at(-1)?.slice(0, 4) ?? '0000';
  const file = fileURLToPath(new URL(`${String(Number(last) + 1).padStart(4, '0')}-${name}.ts`, area.migrations));
  writeFileSync(
    file,
    "import type { Knex } from 'knex';\n\n// One re-runnable statement.\nexport const up = (knex: Knex) => knex.raw('');\n\nexport const down = (knex: Knex) => knex.raw('');\n",
  );
  return file;
}

async function main(verb = 'up', area?: string, name?: string): Promise<void> {
  if (verb === 'new') return console.log(begin(areaOf(area), name));
  const { databaseUrl, databasePrefix, databaseConnections } = platformSettings;
  const config = readSettings({ databaseUrl, databasePrefix, databaseConnections });
  if (verb !== 'up' && verb !== 'down') throw new Error('say up, down <area> or new <area> <name>');
  for (const one of verb === 'up' ? areas : [areaOf(area)]) {
    const names = await (verb === 'up' ? migrate : rollback)(config, one);
    console.log(`${one.name}: ${names.length > 0 ? names.join(', ') : 'nothing to do'}`);
  }
}

main(...process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(`migrate: ${error.message}`);
    process.exit(1);
  },
);
