import type { Knex } from 'knex';

// What a platform admin has set for a workspace. NULL: as the installation has it. A row without limits is there for claims to wait at.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS quotas (
    workspace BINARY(16) NOT NULL PRIMARY KEY,
    queued INT NULL,
    running INT NULL,
    log_mib_per_day INT NULL,
    log_mib_per_month INT NULL,
    result_mib INT NULL,
    run_minutes_per_month INT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('quotas');
