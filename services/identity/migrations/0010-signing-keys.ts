import type { Knex } from 'knex';

// The keys that access tokens are signed with, the private part sealed. The youngest one whose active_time has come signs.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS signing_keys (
    kid VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    sealed VARBINARY(512) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    active_time DATETIME(6) NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('signing_keys');
