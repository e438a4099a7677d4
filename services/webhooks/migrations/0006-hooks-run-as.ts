import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// For whom executions are started. NULL: the creator.
export const up = (knex: Knex) => unlessColumn(knex, 'hooks', 'run_as', 'ALTER TABLE hooks ADD COLUMN run_as BINARY(16) NULL');

export const down = (knex: Knex) => ifColumn(knex, 'hooks', 'run_as', 'ALTER TABLE hooks DROP COLUMN run_as');
