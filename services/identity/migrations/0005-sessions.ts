import type { Knex } from 'knex';

// Sign-ins. A session ends by sign-out, by reuse of a refresh token, with its user's being disabled, or at expire_time.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS sessions (
    id BINARY(16) NOT NULL PRIMARY KEY,
    user BINARY(16) NOT NULL,
    workspace BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    end_time DATETIME(6) NULL,
    end_reason VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
    KEY by_user (user, end_time),
    KEY by_expire_time (expire_time),
    KEY by_end_time (end_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('sessions');
