import type { Knex } from 'knex';
import { byWeek } from '../partitions.ts';

// Inputs and outputs over 16 KiB, as JSON. kind: INPUT or OUTPUT.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS results (
    execution BINARY(16) NOT NULL,
    kind VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    body MEDIUMTEXT NOT NULL,
    PRIMARY KEY (execution, kind)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci ${byWeek('execution', new Date())}`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('results');
