// Artifacts as they come from automation servers, under a claim, and as they go: expired, given up, deleted. Lock order: running, artifacts,
// artifact_usage.
import type { Blobs } from '#platform/blob.ts';
import type { Db, Pool, Tx } from '#platform/db.ts';
import { aborted } from '#platform/errors.ts';
import * as artifact from './artifact.ts';
import { type ArtifactRow, COLUMNS, type Limits } from './artifact.ts';
import * as store from './artifact-store.ts';
import type { LoadSpecs } from './engine/specs.ts';
import { alone } from './partition-system.ts';

export interface Opening {
  id: Buffer;
  execution: Buffer;
  claimId: Buffer;
  name: string;
  contentType: string;
  days: number;
}
export interface Begun {
  row: ArtifactRow;
  used: { attempt: number; workspace: number }; // bytes of others
}
export interface Rules {
  db: Db;
  specs: LoadSpecs;
  limits: Limits;
}
export interface Content {
  size: number;
  sha256: string;
}

const GIVEN_UP_SECONDS = 60; // after its claim has gone, so that a late message finds it rather than begins it again
const SWEEP_MOST = 500;
const DAY_SECONDS = 24 * 3600;

// Begins an upload, or finds it where it was begun before.
export const begin = ({ db, specs, limits }: Rules, opening: Opening): Promise<Begun> =>
  db.transaction(async (tx) => {
    const { workspace, attempt } = await present(tx, opening);
    const { id, execution, claimId, name } = opening;
    const others = await ofExecution(tx, execution);
    const known = others.find((one) => one.id.equals(id));
    if (known && (!known.claim_id.equals(claimId) || known.state === 'DELETED')) throw aborted('the upload was given up');
    if (!known) {
      if (others.filter((one) => counts(one, claimId)).length >= limits.count) throw artifact.tooMany(limits);
      const made = { id, workspace, execution, attempt, claim_id: claimId, name, content_type: opening.contentType };
      const expire_time = tx.raw('NOW(6) + INTERVAL ? SECOND', [await keepSeconds(tx, opening, limits, specs)]);
      const row = { ...made, state: 'UPLOADING', size_bytes: 0, sha256: '', open_time: tx.raw('NOW(6)'), expire_time };
      await tx('artifacts').insert(row).onConflict('id').ignore(); // a connection that broke off may still be at it
    }
    const row = (await tx<ArtifactRow>('artifacts')
      .where({ id })
      .first(...COLUMNS)) as ArtifactRow;
    const usage = await tx('artifact_usage').where({ workspace }).first('bytes');
    const [kept, replaced] = siblings(others, row);
    return { row, used: { attempt: bytesOf(kept), workspace: Number(usage?.bytes ?? 0) - bytesOf(replaced) } };
  });

// Makes a complete one exist, in place of an earlier one of its name. Its content is durable already.
export const complete = (
  db: Db,
  { id, execution, claim_id: claimId }: ArtifactRow,
  content: Content,
  limits: Limits,
): Promise<ArtifactRow> =>
  db.transaction(async (tx) => {
    const { workspace } = await present(tx, { execution, claimId });
    const others = await ofExecution(tx, execution);
    const row = others.find((one) => one.id.equals(id));
    if (!row || row.state === 'DELETED') throw aborted('the upload was given up');
    if (row.state === 'STORED') return row;
    const [kept, replaced] = siblings(others, row);
    artifact.check(content.size, { attempt: bytesOf(kept), workspace: 0 }, limits);
    // With the lock that the update needs: INSERT IGNORE takes a shared one of a row that is there, and two who both want more wait for each other.
    await tx.raw('INSERT INTO artifact_usage (workspace, bytes) VALUES (?, 0) ON DUPLICATE KEY UPDATE bytes = bytes', [workspace]);
    const more = content.size - bytesOf(replaced);
    const [counted] = await tx.raw('UPDATE artifact_usage SET bytes = bytes + ? WHERE workspace = ? AND (? <= 0 OR bytes + ? <= ?)', [
      more,
      workspace,
      more,
      more,
      limits.workspaceBytes,
    ]);
    if (counted.affectedRows === 0) throw artifact.overQuota(limits);
    for (const one of replaced) await tx('artifacts').where({ id: one.id }).update({ state: 'DELETED' });
    const now = tx.raw('NOW(6)');
    const expire_time = tx.raw('expire_time + INTERVAL TIMESTAMPDIFF(MICROSECOND, open_time, NOW(6)) MICROSECOND');
    const whole = { state: 'STORED', size_bytes: content.size, sha256: content.sha256, create_time: now, expire_time };
    await tx('artifacts').where({ id }).update(whole);
    return (await tx<ArtifactRow>('artifacts')
      .where({ id })
      .first(...COLUMNS)) as ArtifactRow;
  });

// Of an upload that its sender has given up. The rest is the sweep's.
export const giveUp = (db: Db, { id }: ArtifactRow): Promise<unknown> =>
  db('artifacts').where({ id, state: 'UPLOADING' }).update({ state: 'DELETED' });

// Removes what has expired, uploads whose claim has gone, and the content of what has vanished; and what was staged on this machine and never
// completed, here or elsewhere. Answers how many are gone.
export async function sweep({ db, pool, blobs }: { db: Db; pool: Pool; blobs: Blobs }): Promise<number> {
  const gone = alone(pool, 'artifacts', async () => {
    const expired = await db('artifacts')
      .where({ state: 'STORED' })
      .where('expire_time', '<=', db.raw('NOW(6)'))
      .limit(SWEEP_MOST)
      .select('id', 'workspace');
    for (const { workspace, id } of expired) await store.vanish(db, workspace, id);
    await db.raw(
      `UPDATE artifacts a SET a.state = 'DELETED' WHERE a.state = 'UPLOADING' AND a.open_time < NOW(6) - INTERVAL ? SECOND
        AND NOT EXISTS (SELECT 1 FROM running r WHERE r.execution = a.execution AND r.claim_id = a.claim_id)`,
      [GIVEN_UP_SECONDS],
    );
    const vanished = await db<ArtifactRow>('artifacts').where({ state: 'DELETED' }).limit(SWEEP_MOST).select('id');
    for (const row of vanished) await remove(db, blobs, row);
    return vanished.length;
  });
  return (await gone.finally(() => blobs.sweep())) ?? 0;
}

// Of one that has vanished: the content first, so that it is found again when this fails.
export async function remove(db: Db, blobs: Blobs, row: Pick<ArtifactRow, 'id'>): Promise<void> {
  await blobs.delete(artifact.keyOf(row));
  await db('artifacts').where({ id: row.id, state: 'DELETED' }).delete();
}

// The fence: nobody can claim or end the execution until the transaction has ended.
async function present(tx: Tx, { execution, claimId }: Pick<Opening, 'execution' | 'claimId'>) {
  const found = await tx('running').where({ execution }).forShare().first('workspace', 'attempt', 'claim_id');
  if (!found?.claim_id.equals(claimId)) throw artifact.superseded();
  return found as { workspace: Buffer; attempt: number };
}

// The shortest of what the script, the automation and the installation say.
async function keepSeconds(tx: Tx, { execution, days }: Opening, limits: Limits, specs: LoadSpecs): Promise<number> {
  const one = await tx('executions').where({ id: execution }).first('automation', 'revision');
  const asked = (await specs([one]))(one)?.spec.retention?.artifacts;
  const said = [days * DAY_SECONDS, asked?.seconds ?? 0].filter((seconds) => seconds > 0);
  return Math.min(...said, limits.days * DAY_SECONDS);
}

const ofExecution = (tx: Tx, execution: Buffer): Promise<ArtifactRow[]> =>
  tx<ArtifactRow>('artifacts')
    .where({ execution })
    .forUpdate()
    .select(...COLUMNS);

const counts = ({ state, claim_id }: ArtifactRow, claimId: Buffer): boolean =>
  state === 'STORED' || (state === 'UPLOADING' && claim_id.equals(claimId));

// The stored ones of the same attempt: those that stay, and those whose place the row takes.
function siblings(all: readonly ArtifactRow[], row: ArtifactRow): [ArtifactRow[], ArtifactRow[]] {
  const stored = all.filter((one) => one.state === 'STORED' && one.attempt === row.attempt && !one.id.equals(row.id));
  return [stored.filter(({ name }) => name !== row.name), stored.filter(({ name }) => name === row.name)];
}

const bytesOf = (rows: readonly ArtifactRow[]): number => rows.reduce((sum, { size_bytes }) => sum + size_bytes, 0);
