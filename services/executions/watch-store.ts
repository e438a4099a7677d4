// What a watch of many reads: ids by their age, and the database's time.
import type { Pool } from '#platform/db.ts';
import { rows } from './engine/sql.ts';
import type { Wanted } from './filter.ts';
import { conditions } from './store.ts';

const PAGE = 1000;

export async function clock(pool: Pool): Promise<Date> {
  const [[row]] = (await rows(pool, ['SELECT NOW(6) AS now'])) as [[{ now: Date }]];
  return row.now;
}

// The executions from an id on, the oldest first, that are open or ended since a time.
export async function since(pool: Pool, workspace: Buffer, from: Buffer, endedSince: Date, wanted: Wanted): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  const fits = conditions(pool, { ...wanted, before: undefined });
  for (let after = from, than = '>='; ; than = '>') {
    const range = pool.format(`e.workspace = ? AND e.id ${than} ? AND (e.end_time IS NULL OR e.end_time >= ?)`, [
      workspace,
      after,
      endedSince,
    ]);
    const [found = []] = await rows<[{ id: Buffer }[]]>(pool, [
      `SELECT e.id FROM executions e WHERE ${range}${fits} ORDER BY e.id LIMIT ${PAGE}`,
    ]);
    ids.push(...found.map(({ id }) => id));
    const last = found.at(-1);
    if (found.length < PAGE || !last) return ids;
    after = last.id;
  }
}
