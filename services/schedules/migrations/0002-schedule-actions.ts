import type { Knex } from 'knex';

// What a schedule runs, and for whom: a new row with each change, so that a tick runs what was meant when it was claimed.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS schedule_actions (
    workspace BINARY(16) NOT NULL,
    schedule BINARY(16) NOT NULL,
    number INT NOT NULL,
    automation BINARY(16) NOT NULL,
    revision INT NOT NULL,
    input MEDIUMTEXT NULL,
    labels MEDIUMTEXT NOT NULL,
    priority TINYINT NULL,
    time_parameter VARCHAR(63) NOT NULL,
    run_as BINARY(16) NOT NULL,
    PRIMARY KEY (workspace, schedule, number),
    CONSTRAINT schedule_of_action FOREIGN KEY (workspace, schedule) REFERENCES schedules (workspace, id) ON DELETE CASCADE
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('schedule_actions');
