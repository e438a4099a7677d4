import type { Knex } from 'knex';

// Workspaces whose executions are halted; sixteen zero bytes stand for all of them. mode: MAINTENANCE (none starts) or STOPPED (none is accepted).
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS holds (
    workspace BINARY(16) NOT NULL PRIMARY KEY,
    mode VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason VARCHAR(500) NOT NULL,
    setter BINARY(16) NOT NULL,
    set_time DATETIME(6) NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('holds');
