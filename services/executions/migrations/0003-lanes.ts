import type { Knex } from 'knex';

// One row for each distinct place to queue in.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS lanes (
    lane INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    workspace BINARY(16) NOT NULL,
    queue VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    selector VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    fairness_key VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    weight INT NOT NULL,
    max_running INT NULL,
    rate_per_second DOUBLE NULL,
    UNIQUE KEY identity (workspace, queue, selector, fairness_key)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('lanes');
