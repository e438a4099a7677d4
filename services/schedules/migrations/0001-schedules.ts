import type { Knex } from 'knex';

// tick_time and next_time are the tick that is next, without and with jitter: NULL unless the schedule is active. Whoever holds the row's
// lock decides what becomes of its ticks.
// Texts that are JSON stand in MEDIUMTEXT: JSON columns reorder keys in MySQL and refuse deep nesting in MariaDB.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS schedules (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(200) NOT NULL,
    description TEXT NOT NULL,
    automation BINARY(16) NOT NULL,
    action INT NOT NULL,
    run_as BINARY(16) NOT NULL,
    spec MEDIUMTEXT NOT NULL,
    overlap VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    catch_up_seconds INT NOT NULL,
    pause_on_failure BOOLEAN NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    pause_reason VARCHAR(500) NOT NULL,
    tick_time DATETIME(6) NULL,
    next_time DATETIME(6) NULL,
    started INT NOT NULL DEFAULT 0,
    succeeded INT NOT NULL DEFAULT 0,
    failed INT NOT NULL DEFAULT 0,
    skipped INT NOT NULL DEFAULT 0,
    missed INT NOT NULL DEFAULT 0,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (workspace, id),
    KEY by_next_time (next_time),
    KEY by_automation (workspace, automation, id),
    KEY by_run_as (run_as)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('schedules');
