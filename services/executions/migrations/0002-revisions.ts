import type { Knex } from 'knex';

// Immutable revisions: spec is an encoded AutomationSpec.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS revisions (
    automation BINARY(16) NOT NULL,
    number INT NOT NULL,
    spec MEDIUMBLOB NOT NULL,
    PRIMARY KEY (automation, number)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('revisions');
