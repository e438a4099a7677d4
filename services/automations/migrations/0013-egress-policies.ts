import type { Knex } from 'knex';

// Where the scripts of workspaces may connect to. rules is a JSON array of {host, ports}; 0 means the default for what is counted.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS egress_policies (
    workspace BINARY(16) NOT NULL PRIMARY KEY,
    rules JSON NOT NULL,
    max_connections INT NOT NULL,
    max_mib INT NOT NULL,
    version INT NOT NULL,
    updater BINARY(16) NOT NULL,
    update_time DATETIME(6) NOT NULL
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('egress_policies');
