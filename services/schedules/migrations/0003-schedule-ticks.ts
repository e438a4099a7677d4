import type { Knex } from 'knex';

// A tick is claimed by its row, once: origin is zero for times of the spec, else the backfill or, for a tick that was asked for, itself.
// check_time is when the tick is looked after next; NULL once its state is final. try_time is when its execution was asked for first.
// stop is empty, or how the execution is to end: CANCEL, with grace, or KILL.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS schedule_ticks (
    workspace BINARY(16) NOT NULL,
    schedule BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    origin BINARY(16) NOT NULL,
    tick_time DATETIME(6) NOT NULL,
    due_time DATETIME(6) NOT NULL,
    cause VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    overlap VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    action INT NOT NULL,
    count INT NOT NULL,
    reason VARCHAR(1000) NOT NULL,
    execution BINARY(16) NULL,
    stop VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    create_time DATETIME(6) NOT NULL,
    start_time DATETIME(6) NULL,
    end_time DATETIME(6) NULL,
    check_time DATETIME(6) NULL,
    try_time DATETIME(6) NULL,
    checks INT NOT NULL,
    PRIMARY KEY (workspace, schedule, id),
    UNIQUE KEY once (schedule, origin, tick_time),
    KEY by_due_time (workspace, schedule, due_time, id),
    KEY by_state (schedule, state, due_time),
    KEY by_execution (execution),
    KEY by_check_time (check_time),
    KEY by_end_time (end_time),
    CONSTRAINT schedule_of_tick FOREIGN KEY (workspace, schedule) REFERENCES schedules (workspace, id) ON DELETE CASCADE
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('schedule_ticks');
