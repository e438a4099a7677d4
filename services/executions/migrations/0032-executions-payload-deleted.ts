import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// When the input and output were erased.
export const up = (knex: Knex) =>
  unlessColumn(knex, 'executions', 'payload_deleted_time', 'ALTER TABLE executions ADD COLUMN payload_deleted_time DATETIME(6) NULL');

export const down = (knex: Knex) =>
  ifColumn(knex, 'executions', 'payload_deleted_time', 'ALTER TABLE executions DROP COLUMN payload_deleted_time');
