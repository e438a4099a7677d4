import type { Knex } from 'knex';

// Every refresh token of a session, by its SHA-256: used ones stay, so that using one again is noticed.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS refresh_tokens (
    hash BINARY(32) NOT NULL PRIMARY KEY,
    session BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    use_time DATETIME(6) NULL,
    KEY by_session (session)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('refresh_tokens');
