import type { Knex } from 'knex';
import { byWeek } from '../partitions.ts';

// Started attempts; the row is written when the server says that the script runs.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS attempts (
    execution BINARY(16) NOT NULL,
    number INT NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    claim_id BINARY(16) NOT NULL,
    server BINARY(16) NOT NULL,
    sandbox_tier INT NOT NULL,
    isolation VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    limits JSON NOT NULL,
    start_time DATETIME(6) NOT NULL,
    end_time DATETIME(6) NULL,
    error JSON NULL,
    cpu_seconds DOUBLE NULL,
    peak_memory_kib INT NULL,
    log_bytes INT NULL,
    log_count INT NULL,
    log_sha256 CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    dropped_bytes INT NULL,
    PRIMARY KEY (execution, number)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci ${byWeek('execution', new Date())}`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('attempts');
