import type { Knex } from 'knex';

// Tokens that count no longer: those of a session or a user issued in the second issued_before or earlier.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS revocations (
    subject VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    issued_before DATETIME(6) NOT NULL,
    expire_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    KEY by_update_time (update_time),
    KEY by_expire_time (expire_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('revocations');
