import type { Knex } from 'knex';

// types is a JSON list. failures counts the sends that failed since the last that was received; nothing is sent until open_until.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS event_subscriptions (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(200) NOT NULL,
    url TEXT NOT NULL,
    types TEXT NOT NULL,
    disabled BOOLEAN NOT NULL,
    disabled_reason VARCHAR(200) NOT NULL,
    secret VARBINARY(1024) NOT NULL,
    secret_create_time DATETIME(6) NOT NULL,
    previous_secret VARBINARY(1024) NULL,
    previous_until DATETIME(6) NULL,
    failures INT NOT NULL,
    failing_since DATETIME(6) NULL,
    open_until DATETIME(6) NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    version INT NOT NULL,
    PRIMARY KEY (workspace, id),
    UNIQUE KEY by_id (id)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('event_subscriptions');
