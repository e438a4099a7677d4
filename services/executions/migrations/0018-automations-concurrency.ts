import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// The concurrency limit of the published revision, as concurrency.ts has it. NULL: none.
export const up = (knex: Knex) =>
  unlessColumn(knex, 'automations', 'concurrency', 'ALTER TABLE automations ADD COLUMN concurrency JSON NULL');

export const down = (knex: Knex) => ifColumn(knex, 'automations', 'concurrency', 'ALTER TABLE automations DROP COLUMN concurrency');
