import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// Whose limit it is, so that a newly published one changes them all, and what becomes of those that find no place. NULL: it waits.
export const up = (knex: Knex) =>
  unlessColumn(
    knex,
    'limits',
    'automation',
    'ALTER TABLE limits ADD COLUMN automation BINARY(16) NULL, ADD COLUMN policy VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL, ADD KEY by_automation (automation, limit_key)',
  );

export const down = (knex: Knex) =>
  ifColumn(knex, 'limits', 'automation', 'ALTER TABLE limits DROP KEY by_automation, DROP COLUMN automation, DROP COLUMN policy');
