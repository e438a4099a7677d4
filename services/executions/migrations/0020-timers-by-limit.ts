import type { Knex } from 'knex';

const KEY =
  "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 'timers' AND index_name = 'by_limit' LIMIT 1";

// A limit that nobody uses may go only when nobody comes back to it.
export async function up(knex: Knex): Promise<void> {
  const [found] = await knex.raw(KEY);
  if (found.length === 0) await knex.raw('ALTER TABLE timers ADD KEY by_limit (limit_key)');
}

export async function down(knex: Knex): Promise<void> {
  const [found] = await knex.raw(KEY);
  if (found.length > 0) await knex.raw('ALTER TABLE timers DROP KEY by_limit');
}
