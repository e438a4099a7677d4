import type { Knex } from 'knex';

// name_key is what makes a name unique: folded to lower case, NULL once the automation was deleted. A deleted one stays until executions
// know. apply_time is when executions are to be told again; NULL once they know the version.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS automations (
    workspace BINARY(16) NOT NULL,
    id BINARY(16) NOT NULL,
    name VARCHAR(200) NOT NULL,
    name_key VARCHAR(600) COLLATE utf8mb4_bin NULL,
    description MEDIUMTEXT NOT NULL,
    disabled BOOLEAN NOT NULL,
    labels MEDIUMTEXT NOT NULL,
    latest_revision INT NOT NULL,
    published_revision INT NOT NULL,
    creator BINARY(16) NOT NULL,
    create_time DATETIME(6) NOT NULL,
    update_time DATETIME(6) NOT NULL,
    delete_time DATETIME(6) NULL,
    version INT NOT NULL,
    applied_version INT NOT NULL,
    apply_time DATETIME(6) NULL,
    PRIMARY KEY (workspace, id),
    UNIQUE KEY one_name (workspace, name_key),
    KEY by_name (workspace, name, id),
    KEY by_apply_time (apply_time)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('automations');
