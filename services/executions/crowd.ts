// Makes room behind a concurrency key whose newest executions shall run: the older ones are cancelled. Harmless when repeated.
import type { Pool } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import type { Cancel } from './cancel.ts';
import { tooOld } from './concurrency.ts';
import { format, rows } from './engine/sql.ts';

export type MakeRoom = (key: string) => Promise<void>;

interface Member {
  execution: Buffer;
  workspace: Buffer;
}

const REASON = 'a newer execution with its concurrency key has come';
const LIMIT = "SELECT max FROM limits WHERE limit_key = ? AND policy = 'CANCEL_OLD'";
const MEMBERS = `SELECT m.execution, e.workspace FROM (SELECT execution FROM slots WHERE limit_key = ? UNION SELECT execution FROM waiting WHERE limit_key = ?) m
  JOIN executions e ON e.id = m.execution`;

export const openCrowd = ({ pool, cancel, log }: { pool: Pool; cancel: Cancel; log: Logger }): MakeRoom => {
  return async (key) => {
    const [[limit], members] = await rows<[{ max: number }[], Member[]]>(pool, [format(LIMIT, [key]), format(MEMBERS, [key, key])]);
    if (!limit) return;
    for (const { execution, workspace } of tooOld(members, limit.max)) {
      // One that has ended meanwhile has made room by itself.
      await cancel(workspace, execution, REASON).catch((error) => log.debug({ error, key }, 'an older execution was not cancelled'));
    }
  };
};
