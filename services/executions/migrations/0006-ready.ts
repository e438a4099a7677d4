import type { Knex } from 'knex';

// May start now: a claim is a range read of a lane. attempt is the number the next start has; expire_time ends the waiting.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS ready (
    lane INT NOT NULL,
    priority TINYINT NOT NULL,
    tag BIGINT NOT NULL,
    execution BINARY(16) NOT NULL,
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NULL,
    attempt INT NOT NULL,
    losses INT NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    PRIMARY KEY (lane, priority, tag, execution),
    KEY by_execution (execution),
    KEY by_expiry (expire_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('ready');
