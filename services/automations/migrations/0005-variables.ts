import type { Knex } from 'knex';

// value is JSON, kept as it was written.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS variables (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    description TEXT NOT NULL,
    value MEDIUMTEXT COLLATE utf8mb4_bin NOT NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (workspace, id),
    UNIQUE KEY one_name (workspace, name)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('variables');
