import type { Knex } from 'knex';
import { byWeek } from '../partitions.ts';

// Log lines: an encoded list of lines. codec: 0 plain, 1 zstd. Chunks are merged when an attempt has ended.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS log_chunks (
    execution BINARY(16) NOT NULL,
    attempt INT NOT NULL,
    first_seq INT NOT NULL,
    count INT NOT NULL,
    bytes INT NOT NULL,
    codec TINYINT NOT NULL,
    body MEDIUMBLOB NOT NULL,
    PRIMARY KEY (execution, attempt, first_seq)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci ${byWeek('execution', new Date())}`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('log_chunks');
