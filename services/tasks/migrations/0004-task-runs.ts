import type { Knex } from 'knex';

// Each execution that a task started. check_time is when its state is asked for next; NULL once it has ended and is settled.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS task_runs (
    execution BINARY(16) NOT NULL,
    workspace BINARY(16) NOT NULL,
    task BINARY(16) NOT NULL,
    user BINARY(16) NOT NULL,
    status VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    output MEDIUMTEXT NULL,
    logs MEDIUMTEXT NOT NULL,
    error MEDIUMTEXT NOT NULL,
    create_time DATETIME(6) NOT NULL,
    check_time DATETIME(6) NULL,
    checks INT NOT NULL,
    PRIMARY KEY (execution),
    KEY by_task (workspace, task),
    KEY by_check_time (check_time),
    CONSTRAINT task_of_run FOREIGN KEY (workspace, task) REFERENCES tasks (workspace, id) ON DELETE CASCADE
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('task_runs');
