import type { Knex } from 'knex';
import { byWeek } from '../partitions.ts';

// The history. state is SCHEDULED, QUEUED, RETRYING or PAUSED as last written, or final; whether it runs is told by running. Input and output over 16 KiB stand in results.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS executions (
    id BINARY(16) NOT NULL PRIMARY KEY,
    workspace BINARY(16) NOT NULL,
    automation BINARY(16) NOT NULL,
    revision INT NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    version INT NOT NULL,
    creator BINARY(16) NOT NULL,
    retry_of BINARY(16) NULL,
    labels JSON NULL,
    priority TINYINT NOT NULL,
    lane INT NOT NULL,
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NULL,
    input MEDIUMTEXT NULL,
    output MEDIUMTEXT NULL,
    error JSON NULL,
    cancel_reason VARCHAR(500) NULL,
    attempt_count INT NOT NULL,
    traceparent VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    schedule_time DATETIME(6) NULL,
    next_attempt_time DATETIME(6) NULL,
    create_time DATETIME(6) NOT NULL,
    start_time DATETIME(6) NULL,
    end_time DATETIME(6) NULL,
    KEY by_workspace (workspace, id),
    KEY by_automation (workspace, automation, id),
    KEY by_state (state, workspace, id)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci ${byWeek('id', new Date())}`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('executions');
