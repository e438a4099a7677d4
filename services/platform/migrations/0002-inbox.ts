import type { Knex } from 'knex';

// Events that a consumer has taken in, so that a second delivery changes nothing.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS inbox (
    consumer VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    event BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    PRIMARY KEY (consumer, event),
    KEY by_time (create_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('inbox');
