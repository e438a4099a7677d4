// Halts: of a workspace, or of everything.
import type { Db } from '#platform/db.ts';

export interface HoldRow {
  mode: 'MAINTENANCE' | 'STOPPED';
  reason: string;
  setter: Buffer;
  set_time: Date;
}

export const get = (db: Db, workspace: Buffer): Promise<HoldRow | undefined> =>
  db('holds').select('mode', 'reason', 'setter', 'set_time').where({ workspace }).first();

export async function set(db: Db, workspace: Buffer, mode: HoldRow['mode'], reason: string, setter: Buffer): Promise<void> {
  const row = { workspace, mode, reason, setter, set_time: db.raw('NOW(6)') };
  await db('holds').insert(row).onConflict('workspace').merge();
}

export async function remove(db: Db, workspace: Buffer): Promise<void> {
  await db('holds').where({ workspace }).delete();
}
