import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// labels: what a server must have to run what stands in the lane; never changed. queue_selector: what new executions of the queue ask for, in the
// queue's own lane only. NULL: any server.
export const up = (knex: Knex) =>
  unlessColumn(knex, 'lanes', 'labels', 'ALTER TABLE lanes ADD COLUMN labels JSON NULL, ADD COLUMN queue_selector JSON NULL');

export const down = (knex: Knex) => ifColumn(knex, 'lanes', 'labels', 'ALTER TABLE lanes DROP COLUMN labels, DROP COLUMN queue_selector');
