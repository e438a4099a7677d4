import type { Knex } from 'knex';

// next_attempt_time is NULL once nothing more is to be done; failures after retry_until make a dead letter.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS event_deliveries (
    workspace BINARY(16) NOT NULL,
    subscription BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    type VARCHAR(64) NOT NULL,
    subject VARCHAR(64) NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    attempts INT NOT NULL,
    response_status INT NOT NULL,
    error VARCHAR(500) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    retry_until DATETIME(6) NOT NULL,
    last_attempt_time DATETIME(6) NULL,
    next_attempt_time DATETIME(6) NULL,
    end_time DATETIME(6) NULL,
    PRIMARY KEY (workspace, subscription, id),
    KEY by_state (workspace, subscription, state, id),
    KEY by_next_attempt_time (subscription, next_attempt_time),
    KEY by_create_time (create_time)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('event_deliveries');
