import type { Knex } from 'knex';

// Which resource a request with a key made. Kept for 24 hours.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS idempotency (
    key_hash BINARY(32) NOT NULL PRIMARY KEY,
    request_hash BINARY(32) NOT NULL,
    resource VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    create_time DATETIME(6) NOT NULL,
    KEY by_time (create_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('idempotency');
