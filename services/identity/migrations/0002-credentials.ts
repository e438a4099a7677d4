import type { Knex } from 'knex';

// How a person signs in: an argon2id hash, with its parameters and salt in it.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS credentials (
    user BINARY(16) NOT NULL PRIMARY KEY,
    password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    update_time DATETIME(6) NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('credentials');
