import type { Knex } from 'knex';

// Who holds the slots of a concurrency key, from ready on.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS slots (
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    execution BINARY(16) NOT NULL,
    PRIMARY KEY (limit_key, execution)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('slots');
