import type { Knex } from 'knex';

// Nothing of an environment ever changes; how its build goes stands with the build, which others may share.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS environments (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    requirements MEDIUMTEXT NOT NULL,
    digest BINARY(32) NOT NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    PRIMARY KEY (workspace, id),
    KEY by_name (workspace, name, id)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('environments');
