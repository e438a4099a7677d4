import type { Knex } from 'knex';

// Behind a concurrency key.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS waiting (
    limit_key VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq BIGINT NOT NULL,
    execution BINARY(16) NOT NULL,
    lane INT NOT NULL,
    priority TINYINT NOT NULL,
    attempt INT NOT NULL,
    losses INT NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    PRIMARY KEY (limit_key, seq, execution),
    KEY by_execution (execution),
    KEY by_lane (lane),
    KEY by_expiry (expire_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('waiting');
