import type { Knex } from 'knex';

// One build for each digest, whoever asks for it. state: QUEUED, BUILDING, READY, FAILED. The epoch fences builders: the present one has the
// highest, and keeps the build until lease_time. losses counts the builders that were lost since it was last queued.
export const up = (knex: Knex) =>
  knex.raw(`CREATE TABLE IF NOT EXISTS environment_builds (
    digest BINARY(32) NOT NULL,
    platform VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    requirements MEDIUMTEXT NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    queue_time DATETIME(6) NOT NULL,
    epoch INT NOT NULL,
    losses INT NOT NULL,
    builder VARCHAR(64) NOT NULL,
    lease_time DATETIME(6) NULL,
    line_count INT NOT NULL,
    error TEXT NOT NULL,
    problems MEDIUMTEXT NOT NULL,
    packages MEDIUMTEXT NOT NULL,
    size_kib INT NOT NULL,
    end_time DATETIME(6) NULL,
    PRIMARY KEY (digest),
    KEY by_state (state, platform, queue_time)
  ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci`);

export const down = (knex: Knex) => knex.schema.dropTableIfExists('environment_builds');
