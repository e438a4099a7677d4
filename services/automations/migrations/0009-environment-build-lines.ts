import type { Knex } from 'knex';

// The lines of all builds of a digest, one after the other.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS environment_build_lines (
    digest BINARY(32) NOT NULL,
    seq INT NOT NULL,
    time DATETIME(6) NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (digest, seq)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('environment_build_lines');
