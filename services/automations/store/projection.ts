// store/projection.ts: what executions do not know yet of a workspace's automations.
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import type { ApplyAutomationRequest } from '#gen/millrace/executions/v1/projection_service.ts';
import type { Db } from '#platform/db.ts';
import { toBytes } from '#platform/id.ts';

const REVISIONS_AT_ONCE = 4; // each takes up to half a MiB of a message of 4

interface Row {
  name: string;
  version: number;
  applied_version: number;
  published_revision: number;
  disabled: number;
  delete_time: Date | null;
}

// What to tell next of an automation, a deleted one included. Undefined when there is nothing, or no such automation.
export async function next(db: Db, workspace: string, id: string): Promise<ApplyAutomationRequest | undefined> {
  const key = { workspace: toBytes('workspace', workspace), automation: toBytes('automation', id) };
  const columns = ['name', 'version', 'applied_version', 'published_revision', 'disabled', 'delete_time'];
  const row: Row | undefined = await db('automations').where({ workspace: key.workspace, id: key.automation }).first(columns);
  if (!row) return undefined;
  const revisions: { number: number; source: string; spec: Buffer }[] = await db('revisions')
    .where({ ...key, applied: false })
    .orderByRaw('number = ? desc, number', [row.published_revision]) // what runs must not be named before it is there
    .limit(REVISIONS_AT_ONCE)
    .select('number', 'source', 'spec');
  if (revisions.length === 0 && row.applied_version >= row.version) return undefined;
  return {
    automationId: id,
    workspaceId: workspace,
    name: row.name,
    version: row.version,
    publishedRevision: row.published_revision,
    disabled: row.disabled === 1,
    deleted: row.delete_time !== null,
    revisions: revisions.map(({ number, source, spec }) => ({ number, spec: { ...AutomationSpec.decode(spec), source } })),
  };
}

// Executions know this now. The automation is not due any more once they know all of it; a deleted one has no more use.
export async function known(db: Db, workspace: string, told: ApplyAutomationRequest): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('automation', told.automationId) };
  const revisions = () => db('revisions').where({ workspace: key.workspace, automation: key.id });
  const numbers = told.revisions.map(({ number }) => number);
  await revisions().whereIn('number', numbers).update({ applied: true });
  if (told.deleted) return void (await db('automations').where(key).whereNotNull('delete_time').delete());
  const { version } = told;
  await db('automations').where(key).where('applied_version', '<', version).update({ applied_version: version });
  await db('automations')
    .where({ ...key, version })
    .whereNotExists(revisions().where({ applied: false }).select('number'))
    .update({ apply_time: null });
}
