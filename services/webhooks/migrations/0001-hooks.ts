import type { Knex } from 'knex';

// Secrets are sealed (secrets.ts); the one before counts until previous_until. auth is JSON and stands in text, as elsewhere.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS hooks (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(200) NOT NULL,
    automation BINARY(16) NOT NULL,
    revision INT NOT NULL,
    preset VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    auth TEXT NOT NULL,
    filter TEXT NOT NULL,
    input TEXT NOT NULL,
    delivery_id VARCHAR(200) NOT NULL,
    synchronous BOOLEAN NOT NULL,
    wait_ms INT NULL,
    disabled BOOLEAN NOT NULL,
    secret VARBINARY(1024) NOT NULL,
    secret_create_time DATETIME(6) NOT NULL,
    previous_secret VARBINARY(1024) NULL,
    previous_until DATETIME(6) NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (workspace, id),
    UNIQUE KEY by_id (id),
    KEY by_automation (workspace, automation, id)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('hooks');
