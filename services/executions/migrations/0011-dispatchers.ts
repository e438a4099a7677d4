import type { Knex } from 'knex';

// Dispatchers that live; servers are spread over them by rendezvous hashing.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS dispatchers (
    id BINARY(16) NOT NULL PRIMARY KEY,
    lease_until DATETIME(6) NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('dispatchers');
