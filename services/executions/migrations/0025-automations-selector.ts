import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// The selector of the published revision. NULL: any server.
export const up = (knex: Knex) => unlessColumn(knex, 'automations', 'selector', 'ALTER TABLE automations ADD COLUMN selector JSON NULL');

export const down = (knex: Knex) => ifColumn(knex, 'automations', 'selector', 'ALTER TABLE automations DROP COLUMN selector');
