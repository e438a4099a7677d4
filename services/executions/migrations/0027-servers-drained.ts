import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// drained: a person told it to take nothing new. What a server says of itself is draining.
export const up = (knex: Knex) =>
  unlessColumn(knex, 'servers', 'drained', 'ALTER TABLE servers ADD COLUMN drained BOOLEAN NOT NULL DEFAULT FALSE');

export const down = (knex: Knex) => ifColumn(knex, 'servers', 'drained', 'ALTER TABLE servers DROP COLUMN drained');
