// Artifacts as callers see them: those that are stored, of their workspace.
import type { Db, Tx } from '#platform/db.ts';
import { type ArtifactRow, COLUMNS } from './artifact.ts';

interface Page {
  execution: Buffer;
  attempt: number; // 0: all
  after: Buffer | undefined;
  limit: number;
}

const stored = (db: Db | Tx, workspace: Buffer) => db<ArtifactRow>('artifacts').where({ workspace, state: 'STORED' });

export const list = (db: Db, workspace: Buffer, { execution, attempt, after, limit }: Page): Promise<ArtifactRow[]> =>
  stored(db, workspace)
    .where({ execution })
    .modify((query) => void (attempt > 0 && query.where({ attempt })))
    .modify((query) => void (after && query.where('id', '>', after)))
    .orderBy('id')
    .limit(limit)
    .select(...COLUMNS);

export const get = (db: Db, workspace: Buffer, id: Buffer): Promise<ArtifactRow | undefined> =>
  stored(db, workspace)
    .where({ id })
    .first(...COLUMNS);

// Makes it vanish; its content is removed afterwards. False when there is none.
export const vanish = (db: Db, workspace: Buffer, id: Buffer): Promise<boolean> =>
  db.transaction(async (tx) => {
    const row = await stored(tx, workspace).where({ id }).forUpdate().first('size_bytes');
    if (!row) return false;
    await stored(tx, workspace).where({ id }).update({ state: 'DELETED' });
    await tx('artifact_usage').where({ workspace }).decrement('bytes', row.size_bytes);
    return true;
  });
