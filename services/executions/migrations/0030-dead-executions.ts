import type { Knex } from 'knex';
import { byWeek } from '../partitions.ts';

// Executions that ended FAILED or TIMED_OUT. state: DEAD, REDRIVEN or DISCARDED. redriven_as: the execution that repeats it; not known yet while
// it is being redriven.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS dead_executions (
    execution BINARY(16) NOT NULL PRIMARY KEY,
    workspace BINARY(16) NOT NULL,
    automation BINARY(16) NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    create_time DATETIME(6) NOT NULL,
    settle_time DATETIME(6) NULL,
    settler BINARY(16) NULL,
    redriven_as BINARY(16) NULL,
    KEY by_state (workspace, state, execution),
    KEY by_automation (workspace, automation, state, execution)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci ${byWeek('execution', new Date())}`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('dead_executions');
