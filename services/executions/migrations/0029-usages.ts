import type { Knex } from 'knex';

// What the attempts that ended on a day used, in UTC. Results count for the day on which their execution was made: they go with it.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS usages (
    workspace BINARY(16) NOT NULL,
    day DATE NOT NULL,
    log_bytes BIGINT NOT NULL,
    run_ms BIGINT NOT NULL,
    result_bytes BIGINT NOT NULL,
    PRIMARY KEY (workspace, day)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('usages');
