import type { Knex } from 'knex';

// Tasks that were deleted within the last hour, so that a watcher learns of them even when the notice was lost.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS task_deletions (
    workspace BINARY(16) NOT NULL,
    task BINARY(16) NOT NULL,
    delete_time DATETIME(6) NOT NULL,
    PRIMARY KEY (workspace, task),
    KEY by_workspace (workspace, delete_time),
    KEY by_delete_time (delete_time)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('task_deletions');
