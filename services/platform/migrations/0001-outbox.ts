import type { Knex } from 'knex';

// Events that became true with the transaction that wrote them; the relay publishes and deletes them.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS outbox (
    id BINARY(16) NOT NULL PRIMARY KEY,
    type VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    verb VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    workspace VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    version INT NOT NULL,
    data_schema VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    data MEDIUMBLOB NOT NULL,
    traceparent VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    create_time DATETIME(6) NOT NULL
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('outbox');
