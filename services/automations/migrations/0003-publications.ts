import type { Knex } from 'knex';

// What was published, in order. parent is the publication that this one can be rolled back to, 0 when there is none.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS publications (
    workspace BINARY(16) NOT NULL,
    automation BINARY(16) NOT NULL,
    sequence INT NOT NULL,
    revision INT NOT NULL,
    parent INT NOT NULL,
    user BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    PRIMARY KEY (workspace, automation, sequence),
    KEY by_revision (workspace, automation, revision, create_time),
    CONSTRAINT automation_of_publication FOREIGN KEY (workspace, automation) REFERENCES automations (workspace, id) ON DELETE CASCADE
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('publications');
