import type { Knex } from 'knex';

// What may change about an automation, as the automations area last told.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS automations (
    id BINARY(16) NOT NULL PRIMARY KEY,
    workspace BINARY(16) NOT NULL,
    name VARCHAR(200) NOT NULL,
    version INT NOT NULL,
    published_revision INT NOT NULL,
    disabled BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('automations');
