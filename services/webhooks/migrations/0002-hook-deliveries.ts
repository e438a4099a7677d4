import type { Knex } from 'knex';

// automation, revision, creator (for whom it runs) and input are the hook's when the delivery was accepted: every try asks for the same
// execution.
// next_attempt_time is NULL once nothing more is to be done.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS hook_deliveries (
    workspace BINARY(16) NOT NULL,
    hook BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    sender_delivery_id VARCHAR(255) NOT NULL,
    automation BINARY(16) NOT NULL,
    revision INT NOT NULL,
    creator BINARY(16) NOT NULL,
    input MEDIUMTEXT NULL,
    execution BINARY(16) NULL,
    error TEXT NOT NULL,
    method VARCHAR(16) NOT NULL,
    headers MEDIUMTEXT NOT NULL,
    query TEXT NOT NULL,
    body MEDIUMBLOB NULL,
    body_bytes INT NOT NULL,
    remote_address VARCHAR(64) NOT NULL,
    attempts INT NOT NULL,
    duplicates INT NOT NULL,
    redelivery_of BINARY(16) NULL,
    receive_time DATETIME(6) NOT NULL,
    last_attempt_time DATETIME(6) NULL,
    next_attempt_time DATETIME(6) NULL,
    end_time DATETIME(6) NULL,
    PRIMARY KEY (workspace, hook, id),
    KEY by_state (workspace, hook, state, id),
    KEY by_next_attempt_time (next_attempt_time),
    KEY by_receive_time (receive_time)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('hook_deliveries');
