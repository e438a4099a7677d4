import type { Knex } from 'knex';

// The words of each task, as search.ts makes them.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS tasks_search (
    workspace BINARY(16) NOT NULL,
    task BINARY(16) NOT NULL,
    words MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (workspace, task),
    FULLTEXT KEY by_words (words)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('tasks_search');
