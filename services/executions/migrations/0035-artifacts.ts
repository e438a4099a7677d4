import type { Knex } from 'knex';

// Files that scripts keep. state: UPLOADING, STORED, or DELETED, which nobody sees and which goes once its content has gone: so there is no content
// without a row. claim_id: under which it came.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS artifacts (
    id BINARY(16) NOT NULL PRIMARY KEY,
    workspace BINARY(16) NOT NULL,
    execution BINARY(16) NOT NULL,
    attempt INT NOT NULL,
    claim_id BINARY(16) NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    content_type VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    size_bytes INT NOT NULL,
    sha256 CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    open_time DATETIME(6) NOT NULL,
    create_time DATETIME(6) NULL,
    expire_time DATETIME(6) NOT NULL,
    KEY by_execution (execution, attempt),
    KEY by_state (state, expire_time)
  ) ENGINE=InnoDB COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('artifacts');
