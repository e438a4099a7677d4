// store/automations.ts: automations in the database. Every function takes the workspace and neither answers nor touches what belongs to
// another.
import type { Automation } from '#gen/millrace/automations/v1/automation.ts';
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { faults } from '../automation.ts';

interface Row {
  id: Buffer;
  name: string;
  description: string;
  disabled: number;
  labels: string;
  latest_revision: number;
  published_revision: number;
  creator: Buffer;
  create_time: Date;
  update_time: Date;
  version: number;
  spec?: Buffer | null; // of the published revision; left out of lists
}

const SUMMARY = [
  ...['a.id', 'a.name', 'a.description', 'a.disabled', 'a.labels', 'a.latest_revision', 'a.published_revision'],
  ...['a.creator', 'a.create_time', 'a.update_time', 'a.version'],
];
const RETRY_SECONDS = 5; // longer than telling executions at once may take

const automationsOf = (db: Db, workspace: string): Knex.QueryBuilder =>
  db({ a: 'automations' }).where('a.workspace', toBytes('workspace', workspace)).whereNull('a.delete_time');

export async function insert(tx: Tx, workspace: string, automation: Automation): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('automation', automation.id) };
  const made = { creator: toBytes('user', automation.creatorId), create_time: automation.createTime, applied_version: 0 };
  await naming(automation.name, () => tx('automations').insert({ ...key, ...made, ...changeable(tx, automation) }));
}

// With the schemas of the published revision.
export async function get(db: Db, workspace: string, id: string, field = 'id'): Promise<Automation> {
  const row: Row | undefined = await automationsOf(db, workspace)
    .where('a.id', toBytes('automation', id, field))
    .leftJoin({ r: 'revisions' }, (on) =>
      on.on('r.workspace', 'a.workspace').andOn('r.automation', 'a.id').andOn('r.number', 'a.published_revision'),
    )
    .first([...SUMMARY, 'r.spec']);
  if (!row) throw notFound('automation', id);
  return toAutomation(row);
}

// The automation without schemas, which nobody else can change before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string, field = 'id'): Promise<Automation> {
  const row: Row | undefined = await automationsOf(tx, workspace)
    .where('a.id', toBytes('automation', id, field))
    .forUpdate()
    .first(SUMMARY);
  if (!row) throw notFound('automation', id);
  return toAutomation(row);
}

export async function save(tx: Tx, workspace: string, before: Automation, after: Automation): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('automation', after.id) };
  const count = await naming(after.name, () =>
    tx('automations')
      .where({ ...key, version: before.version })
      .update(changeable(tx, after)),
  );
  if (count !== 1) throw aborted(`automation ${after.id} changed at the same time: read it again`);
}

// Where a page ended.
export interface Position {
  name: string;
  id: string;
}

// Up to `limit` automations by name, without schemas, after the position.
export async function list(db: Db, workspace: string, text: string, after: Position | undefined, limit: number): Promise<Automation[]> {
  const query = automationsOf(db, workspace).select(SUMMARY).orderBy('a.name').orderBy('a.id').limit(limit);
  if (text !== '') query.where('a.name', 'like', `%${text.replace(/[\\%_]/g, '\\$&')}%`);
  if (after) {
    const id = toBytes('automation', after.id);
    query.where('a.name', '>=', after.name).where((either) => either.where('a.name', '>', after.name).orWhere('a.id', '>', id));
  }
  const rows: Row[] = await query;
  return rows.map(toAutomation);
}

// Hides the automation for good and forgets its revisions. The row stays until executions know that it is deleted.
export async function remove(tx: Tx, workspace: string, automation: Automation, now: Date): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), automation: toBytes('automation', automation.id) };
  await tx('revisions').where(key).delete();
  await tx('publications').where(key).delete();
  const gone = { name_key: null, delete_time: now, version: automation.version + 1, apply_time: soon(tx) };
  await tx('automations').where({ workspace: key.workspace, id: key.automation }).update(gone);
}

// Whether it was removed, and executions do not know yet.
export async function isRemoved(db: Db, workspace: string, id: string): Promise<boolean> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('automation', id) };
  return (await db('automations').where(key).whereNotNull('delete_time').first('id')) !== undefined;
}

const soon = (db: Db) => db.raw('utc_timestamp(6) + interval ? second', [RETRY_SECONDS]);

// What may change. Executions are told again soon, unless they have learnt of the change by then.
const changeable = (db: Db, automation: Automation) => ({
  name: automation.name,
  name_key: automation.name.normalize('NFC').toLowerCase(),
  description: automation.description,
  disabled: automation.disabled,
  labels: JSON.stringify(automation.labels),
  latest_revision: automation.latestRevision,
  published_revision: automation.publishedRevision,
  update_time: automation.updateTime,
  version: automation.version,
  apply_time: soon(db),
});

async function naming<T>(name: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if ((error as { code?: string }).code !== 'ER_DUP_ENTRY') throw error;
    throw faults.alreadyExists('NAME_TAKEN', `there is an automation called ${name} in this workspace: choose another name`, { name });
  }
}

function toAutomation(row: Row): Automation {
  const spec = row.spec ? AutomationSpec.decode(row.spec) : undefined;
  return {
    id: fromBytes('automation', row.id),
    name: row.name,
    description: row.description,
    disabled: row.disabled === 1,
    labels: JSON.parse(row.labels),
    latestRevision: row.latest_revision,
    publishedRevision: row.published_revision,
    inputSchema: spec?.inputSchema,
    outputSchema: spec?.outputSchema,
    creatorId: fromBytes('user', row.creator),
    createTime: row.create_time,
    updateTime: row.update_time,
    version: row.version,
  };
}
