import type { Knex } from 'knex';

// The mutex of each concurrency key, with how many slots are held.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS limits (
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    max INT NOT NULL,
    used INT NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('limits');
