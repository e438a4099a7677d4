import type { Knex } from 'knex';

// What must not count twice for a hook, and the delivery that it counted for.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS hook_keys (
    hook BINARY(16) NOT NULL,
    key_hash BINARY(32) NOT NULL,
    delivery BINARY(16) NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    PRIMARY KEY (hook, key_hash),
    KEY by_expire_time (expire_time)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('hook_keys');
