import type { Knex } from 'knex';

// Keys that one execution of a workspace has: until it has ended, or until expire_time. replaces: the one that had it before and is to be cancelled.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS unique_keys (
    workspace BINARY(16) NOT NULL,
    unique_key VARBINARY(200) NOT NULL,
    execution BINARY(16) NOT NULL,
    expire_time DATETIME(6) NULL,
    replaces BINARY(16) NULL,
    PRIMARY KEY (workspace, unique_key),
    KEY by_execution (execution),
    KEY by_replaces (replaces)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('unique_keys');
