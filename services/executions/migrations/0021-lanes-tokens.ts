import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// What is left of a lane's rate, as of token_time. NULL: nothing was taken yet.
export const up = (knex: Knex) =>
  unlessColumn(knex, 'lanes', 'tokens', 'ALTER TABLE lanes ADD COLUMN tokens DOUBLE NULL, ADD COLUMN token_time DATETIME(6) NULL');

export const down = (knex: Knex) => ifColumn(knex, 'lanes', 'tokens', 'ALTER TABLE lanes DROP COLUMN tokens, DROP COLUMN token_time');
