import type { Knex } from 'knex';

// Events that a consumer could not take in.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS dead_letters (
    consumer VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    event BINARY(16) NOT NULL,
    type VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    workspace VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    data_schema VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    data MEDIUMBLOB NOT NULL,
    failures INT NOT NULL,
    error TEXT NOT NULL,
    create_time DATETIME(6) NOT NULL,
    PRIMARY KEY (consumer, event)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('dead_letters');
