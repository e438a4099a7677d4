import type { Knex } from 'knex';

// Starts at due_time. kind: START (scheduled), RETRY (backoff), PAUSE (held by a person until expiry).
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS timers (
    due_time DATETIME(6) NOT NULL,
    kind VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    execution BINARY(16) NOT NULL,
    lane INT NOT NULL,
    priority TINYINT NOT NULL,
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NULL,
    attempt INT NOT NULL,
    losses INT NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    PRIMARY KEY (due_time, kind, execution),
    KEY by_execution (execution),
    KEY by_lane (lane),
    KEY by_expiry (expire_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('timers');
