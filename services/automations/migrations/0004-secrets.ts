import type { Knex } from 'knex';

// sealed is the value, encrypted by a key that stands encrypted in wrapped_key; key_id names the key of the installation that opens that one.
// automations and users are who may use it, as JSON lists of ids.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS secrets (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    description TEXT NOT NULL,
    automations TEXT NOT NULL,
    users TEXT NOT NULL,
    value_version INT NOT NULL,
    value_time DATETIME(6) NOT NULL,
    value_creator BINARY(16) NOT NULL,
    key_id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    wrapped_key VARBINARY(64) NOT NULL,
    sealed BLOB NOT NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (workspace, id),
    UNIQUE KEY one_name (workspace, name),
    KEY by_key (key_id)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('secrets');
