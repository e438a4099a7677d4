import type { Knex } from 'knex';

export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS task_comments (
    workspace BINARY(16) NOT NULL,
    task BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    author BINARY(16) NOT NULL,
    text TEXT NOT NULL,
    create_time DATETIME(6) NOT NULL,
    PRIMARY KEY (workspace, task, id),
    CONSTRAINT task_of_comment FOREIGN KEY (workspace, task) REFERENCES tasks (workspace, id) ON DELETE CASCADE
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('task_comments');
