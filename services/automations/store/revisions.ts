// store/revisions.ts: revisions and what was published of them, by workspace.
import type { AutomationRevision } from '#gen/millrace/automations/v1/automation.ts';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Publication } from '../automation.ts';

interface Row {
  automation: Buffer;
  number: number;
  source?: string; // left out of lists
  spec: Buffer;
  note: string;
  source_sha256: Buffer;
  creator: Buffer;
  create_time: Date;
  publish_time: Date | null;
}

const SUMMARY = ['r.automation', 'r.number', 'r.spec', 'r.note', 'r.source_sha256', 'r.creator', 'r.create_time'];

const keyOf = (workspace: string, automationId: string) => ({
  workspace: toBytes('workspace', workspace),
  automation: toBytes('automation', automationId, 'automationId'),
});

export async function insert(tx: Tx, workspace: string, revision: AutomationRevision): Promise<void> {
  const spec = revision.spec ?? AutomationSpec.fromPartial({});
  await tx('revisions').insert({
    ...keyOf(workspace, revision.automationId),
    number: revision.number,
    source: spec.source,
    spec: Buffer.from(AutomationSpec.encode({ ...spec, source: '' }).finish()),
    note: revision.note,
    source_sha256: Buffer.from(revision.sourceSha256, 'hex'),
    creator: toBytes('user', revision.creatorId),
    create_time: revision.createTime,
    applied: false,
  });
}

export async function get(db: Db, workspace: string, automationId: string, number: number): Promise<AutomationRevision> {
  const row: Row | undefined = await revisionsOf(db, workspace, automationId)
    .where('r.number', number)
    .first(...SUMMARY, 'r.source', publishTime(db));
  if (!row) throw notFound('revision', `${automationId}/${number}`);
  return toRevision(row);
}

// Up to `limit` revisions before the number, the newest first, without their source.
export async function list(
  db: Db,
  workspace: string,
  automationId: string,
  before: number | undefined,
  limit: number,
): Promise<AutomationRevision[]> {
  const query = revisionsOf(db, workspace, automationId)
    .select(...SUMMARY, publishTime(db))
    .orderBy('r.number', 'desc')
    .limit(limit);
  if (before !== undefined) query.where('r.number', '<', before);
  const rows: Row[] = await query;
  return rows.map(toRevision);
}

// The last publication, or the one of that sequence number. Call it with the automation locked.
export async function publication(tx: Tx, workspace: string, automationId: string, sequence?: number): Promise<Publication | undefined> {
  const query = tx('publications').where(keyOf(workspace, automationId)).orderBy('sequence', 'desc');
  if (sequence !== undefined) query.where({ sequence });
  return query.first('sequence', 'revision', 'parent');
}

export async function publish(
  tx: Tx,
  workspace: string,
  automationId: string,
  made: Publication,
  userId: string,
  now: Date,
): Promise<void> {
  await tx('publications').insert({ ...keyOf(workspace, automationId), ...made, user: toBytes('user', userId), create_time: now });
}

const revisionsOf = (db: Db, workspace: string, automationId: string): Knex.QueryBuilder => {
  const { workspace: key, automation } = keyOf(workspace, automationId);
  return db({ r: 'revisions' }).where({ 'r.workspace': key, 'r.automation': automation });
};

const publishTime = (db: Db): Knex.QueryBuilder =>
  db({ p: 'publications' })
    .max('p.create_time')
    .whereRaw('p.workspace = r.workspace and p.automation = r.automation and p.revision = r.number')
    .as('publish_time');

const toRevision = (row: Row): AutomationRevision => ({
  automationId: fromBytes('automation', row.automation),
  number: row.number,
  spec: { ...AutomationSpec.decode(row.spec), source: row.source ?? '' },
  note: row.note,
  sourceSha256: row.source_sha256.toString('hex'),
  creatorId: fromBytes('user', row.creator),
  createTime: row.create_time,
  publishTime: row.publish_time ?? undefined,
});
