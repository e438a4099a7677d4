import type { Knex } from 'knex';

// execution is the last run's; run_user may start the next one alone until run_until.
// Texts that are JSON stand in MEDIUMTEXT: JSON columns reorder keys in MySQL and refuse deep nesting in MariaDB.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS tasks (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    title VARCHAR(200) NOT NULL,
    description MEDIUMTEXT NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    priority VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    assignee BINARY(16) NULL,
    creator BINARY(16) NOT NULL,
    due_time DATETIME(6) NULL,
    automation BINARY(16) NULL,
    input MEDIUMTEXT NULL,
    execution BINARY(16) NULL,
    run_user BINARY(16) NULL,
    run_until DATETIME(6) NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    end_time DATETIME(6) NULL,
    version INT NOT NULL,
    PRIMARY KEY (workspace, id),
    KEY by_create_time (workspace, create_time, id),
    KEY by_update_time (workspace, update_time, id),
    KEY by_due_time (workspace, due_time, id),
    KEY by_state (workspace, state, create_time, id),
    KEY by_assignee (workspace, assignee, create_time, id)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('tasks');
