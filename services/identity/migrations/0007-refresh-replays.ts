import type { Knex } from 'knex';

// The successor of a refresh token used a moment ago, sealed under a key that only the used token yields.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS refresh_replays (
    hash BINARY(32) NOT NULL PRIMARY KEY,
    sealed VARBINARY(128) NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    KEY by_expire_time (expire_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('refresh_replays');
