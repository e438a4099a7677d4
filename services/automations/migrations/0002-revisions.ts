import type { Knex } from 'knex';

// spec is an encoded AutomationSpec without its source, which stands apart because lists leave it out. applied says whether executions
// have the revision; nothing else of a revision ever changes.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS revisions (
    workspace BINARY(16) NOT NULL,
    automation BINARY(16) NOT NULL,
    number INT NOT NULL,
    source MEDIUMTEXT NOT NULL,
    spec MEDIUMBLOB NOT NULL,
    note TEXT NOT NULL,
    source_sha256 BINARY(32) NOT NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    applied BOOLEAN NOT NULL,
    PRIMARY KEY (workspace, automation, number),
    CONSTRAINT automation_of_revision FOREIGN KEY (workspace, automation) REFERENCES automations (workspace, id) ON DELETE CASCADE
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('revisions');
