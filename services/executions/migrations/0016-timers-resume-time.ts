import type { Knex } from 'knex';
import { ifColumn, unlessColumn } from '../columns.ts';

// What a paused execution waited for besides: its due_time is then when the pause ends it.
export const up = (knex: Knex) => unlessColumn(knex, 'timers', 'resume_time', 'ALTER TABLE timers ADD COLUMN resume_time DATETIME(6) NULL');

export const down = (knex: Knex) => ifColumn(knex, 'timers', 'resume_time', 'ALTER TABLE timers DROP COLUMN resume_time');
