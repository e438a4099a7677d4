import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// The queue of the published revision. NULL: the default one.
export const up = (knex: Knex) =>
  unlessColumn(
    knex,
    'automations',
    'queue',
    'ALTER TABLE automations ADD COLUMN queue VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NULL',
  );

export const down = (knex: Knex) => ifColumn(knex, 'automations', 'queue', 'ALTER TABLE automations DROP COLUMN queue');
