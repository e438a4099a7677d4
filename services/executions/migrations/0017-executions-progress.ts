import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// How far the script said it was when its last attempt ended. The time of a next attempt stands in timers, and was never written here.
export const up = (knex: Knex) =>
  unlessColumn(
    knex,
    'executions',
    'progress_fraction',
    'ALTER TABLE executions ADD COLUMN progress_fraction DOUBLE NULL, ADD COLUMN progress_message VARCHAR(500) NULL, DROP COLUMN next_attempt_time',
  );

export const down = (knex: Knex) =>
  ifColumn(
    knex,
    'executions',
    'progress_fraction',
    'ALTER TABLE executions DROP COLUMN progress_fraction, DROP COLUMN progress_message, ADD COLUMN next_attempt_time DATETIME(6) NULL',
  );
