import type { Knex } from 'knex';

// Where everything that people make belongs.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS workspaces (
    id BINARY(16) NOT NULL PRIMARY KEY,
    name VARCHAR(200) NOT NULL,
    personal BOOLEAN NOT NULL,
    create_time DATETIME(6) NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('workspaces');
