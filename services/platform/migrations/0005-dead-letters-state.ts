import type { Knex } from 'knex';

// What became of a dead letter: DEAD, REDRIVEN or DISCARDED; and the event as it was, so that it can be handed over again.
export const up = async (knex: Knex) => {
  if (await knex.schema.hasColumn('dead_letters', 'state')) return;
  await knex.raw(`ALTER TABLE dead_letters
    ADD COLUMN version INT NOT NULL DEFAULT 0,
    ADD COLUMN event_time DATETIME(6) NULL,
    ADD COLUMN state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'DEAD',
    ADD COLUMN settle_time DATETIME(6) NULL,
    ADD COLUMN settler VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD KEY by_state (state, event, consumer)`);
};

export const down = async (knex: Knex) => {
  if (!(await knex.schema.hasColumn('dead_letters', 'state'))) return;
  await knex.raw(`ALTER TABLE dead_letters DROP KEY by_state, DROP COLUMN version, DROP COLUMN event_time, DROP COLUMN state,
    DROP COLUMN settle_time, DROP COLUMN settler`);
};
