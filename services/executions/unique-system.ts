// What is done about unique keys after they were accepted: those that were replaced are cancelled, and keys that nothing has any more go.
import type { Pool } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import type { Cancel } from './cancel.ts';
import { format, rows } from './engine/sql.ts';

export interface Replaced {
  workspace: Buffer;
  execution: Buffer;
}
interface Deps {
  pool: Pool;
  cancel: Cancel;
  log: Logger;
}

const AT_ONCE = 1000;
const REASON = 'a newer execution has taken its key over';

// Cancels, and writes down that it is done. What fails is found again by tidyUnique.
export async function cancelReplaced({ pool, cancel, log }: Deps, { workspace, execution }: Replaced): Promise<void> {
  await cancel(workspace, execution, REASON).catch((error) => {
    if ((error as { reason?: string }).reason !== 'EXECUTION_ENDED') throw error;
    log.debug({ error }, 'an execution that was replaced has ended by itself');
  });
  await pool.query('UPDATE unique_keys SET replaces = NULL WHERE replaces = ?', [execution]);
}

export async function tidyUnique(deps: Deps): Promise<void> {
  const replaced = `SELECT workspace, replaces AS execution FROM unique_keys WHERE replaces IS NOT NULL LIMIT ${AT_ONCE}`;
  const [found] = await rows<[Replaced[]]>(deps.pool, [replaced]);
  for (const one of found) await cancelReplaced(deps, one);
  const [free] = await rows<[{ workspace: Buffer; unique_key: Buffer; execution: Buffer }[]]>(deps.pool, [FREE]);
  for (const { workspace, unique_key, execution } of free) {
    const sql = 'DELETE FROM unique_keys WHERE workspace = ? AND unique_key = ? AND execution = ? AND replaces IS NULL';
    await deps.pool.query(format(sql, [workspace, unique_key, execution]));
  }
}

const FREE = `SELECT u.workspace, u.unique_key, u.execution FROM unique_keys u LEFT JOIN executions e ON e.id = u.execution
  WHERE u.replaces IS NULL AND IF(u.expire_time IS NULL, e.end_time IS NOT NULL, u.expire_time <= NOW(6)) LIMIT ${AT_ONCE}`;
