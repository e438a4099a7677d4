import type { Knex } from 'knex';

// People with an account. What proves who they are stands in credentials, so that no listing of users can carry it.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS users (
    id BINARY(16) NOT NULL PRIMARY KEY,
    email VARCHAR(254) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    username VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    display_name VARCHAR(200) NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    platform_admin BOOLEAN NOT NULL,
    workspace BINARY(16) NOT NULL,
    version INT NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    UNIQUE KEY by_email (email),
    UNIQUE KEY by_username (username)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('users');
