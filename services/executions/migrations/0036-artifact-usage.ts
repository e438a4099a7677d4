import type { Knex } from 'knex';

// How many bytes the STORED artifacts of a workspace have, changed in the commit that changes their state.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS artifact_usage (
    workspace BINARY(16) NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('artifact_usage');
