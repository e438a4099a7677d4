import type { Knex } from 'knex';

// Automation servers. state: LIVE or LOST. The owner is the dispatcher that holds its session; the lease is how long its attempts count as alive.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS servers (
    id BINARY(16) NOT NULL PRIMARY KEY,
    endpoint VARCHAR(255) NOT NULL,
    labels JSON NOT NULL,
    slots INT NOT NULL,
    tier INT NOT NULL,
    minimum_tier INT NOT NULL,
    protocol INT NOT NULL,
    draining BOOLEAN NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    register_time DATETIME(6) NOT NULL,
    seen_time DATETIME(6) NOT NULL,
    owner BINARY(16) NULL,
    owner_epoch BIGINT NOT NULL,
    lease_until DATETIME(6) NOT NULL,
    KEY by_lease (state, lease_until)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('servers');
