import type { Knex } from 'knex';
import { byWeek } from '../partitions.ts';

// Executions whose input and output are to be erased. keep_ms: so long after the end; NULL: as long as the execution. on_read: also once the
// result was read. due_time: when; NULL until the execution has ended.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS payloads (
    execution BINARY(16) NOT NULL PRIMARY KEY,
    keep_ms BIGINT NULL,
    on_read BOOLEAN NOT NULL,
    due_time DATETIME(6) NULL,
    KEY by_due (due_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci ${byWeek('execution', new Date())}`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('payloads');
