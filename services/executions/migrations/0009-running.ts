import type { Knex } from 'knex';

// Claimed for a server. state: RUNNING or CANCELLING. deadline: when the dispatcher acts although the server has not ended the attempt.
// line_count: lines of log that are durable; whoever writes more begins there.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS running (
    execution BINARY(16) NOT NULL PRIMARY KEY,
    workspace BINARY(16) NOT NULL,
    claim_id BINARY(16) NOT NULL,
    attempt INT NOT NULL,
    losses INT NOT NULL,
    server BINARY(16) NOT NULL,
    lane INT NOT NULL,
    priority TINYINT NOT NULL,
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    started BOOLEAN NOT NULL,
    claim_time DATETIME(6) NOT NULL,
    deadline DATETIME(6) NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    line_count INT NOT NULL DEFAULT 0,
    progress_fraction DOUBLE NULL,
    progress_message VARCHAR(500) NULL,
    KEY by_server (server),
    KEY by_deadline (deadline)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('running');
