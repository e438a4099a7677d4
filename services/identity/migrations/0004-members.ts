import type { Knex } from 'knex';

// Who may do what in a workspace.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS members (
    workspace BINARY(16) NOT NULL,
    user BINARY(16) NOT NULL,
    role VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    create_time DATETIME(6) NOT NULL,
    PRIMARY KEY (workspace, user),
    KEY by_user (user)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('members');
