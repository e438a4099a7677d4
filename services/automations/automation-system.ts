// automation-system.ts: what works across workspaces. Handlers may not import it. Only the database's clock decides what is due.
import type { Db } from '#platform/db.ts';
import { fromBytes } from '#platform/id.ts';

export interface Untold {
  workspace: string;
  id: string;
}

const RETRY_SECONDS = 5;

// Claims automations of which executions are to be told: each is due again after 5 seconds unless they know by then.
export async function claimUntold(db: Db, limit: number): Promise<Untold[]> {
  return db.transaction(async (tx) => {
    const due = tx('automations').where('apply_time', '<=', tx.raw('utc_timestamp(6)')).orderBy('apply_time').limit(limit);
    const rows: { workspace: Buffer; id: Buffer }[] = await due.select('workspace', 'id').forUpdate().skipLocked();
    const next = tx.raw('utc_timestamp(6) + interval ? second', [RETRY_SECONDS]);
    for (const { workspace, id } of rows) await tx('automations').where({ workspace, id }).update({ apply_time: next });
    return rows.map(({ workspace, id }) => ({ workspace: fromBytes('workspace', workspace), id: fromBytes('automation', id) }));
  });
}
