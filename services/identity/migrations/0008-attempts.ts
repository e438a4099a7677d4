import type { Knex } from 'knex';

// Failed sign-ins of one account, name or address, by the hash of what it is.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS attempts (
    subject BINARY(32) NOT NULL PRIMARY KEY,
    failures INT NOT NULL,
    lock_time DATETIME(6) NOT NULL,
    forget_time DATETIME(6) NOT NULL,
    KEY by_forget_time (forget_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('attempts');
