// store/egress.ts: the egress policies of workspaces.
import type { EgressPolicy, EgressRule } from '#gen/millrace/automations/v1/egress_policy.ts';
import type { Db, Tx } from '#platform/db.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

interface Row {
  workspace: Buffer;
  rules: EgressRule[] | string;
  max_connections: number;
  max_mib: number;
  version: number;
  updater: Buffer;
  update_time: Date;
}

const COLUMNS = ['workspace', 'rules', 'max_connections', 'max_mib', 'version', 'updater', 'update_time'];

export async function get(db: Db, workspace: string): Promise<EgressPolicy | undefined> {
  const row: Row | undefined = await db('egress_policies')
    .where({ workspace: toBytes('workspace', workspace) })
    .first(COLUMNS);
  return row && policyOf(row);
}

// The policy, which nobody else can change before the transaction ends; `first` is that of a workspace that has none yet.
export async function lock(tx: Tx, workspace: string, first: EgressPolicy): Promise<EgressPolicy> {
  const insert = tx('egress_policies').insert(rowOf(workspace, first));
  await tx.raw(`${insert.toQuery()} ON DUPLICATE KEY UPDATE workspace = workspace`); // there is then a row to lock, and it is locked
  const row: Row = await tx('egress_policies')
    .where({ workspace: toBytes('workspace', workspace) })
    .forUpdate()
    .first(COLUMNS);
  return policyOf(row);
}

export async function save(tx: Tx, workspace: string, policy: EgressPolicy): Promise<void> {
  const { workspace: key, ...changed } = rowOf(workspace, policy);
  await tx('egress_policies').where({ workspace: key }).update(changed);
}

const rowOf = (workspace: string, { rules, maxConnections, maxMib, version, updaterId, updateTime }: EgressPolicy) => ({
  workspace: toBytes('workspace', workspace),
  rules: JSON.stringify(rules),
  max_connections: maxConnections,
  max_mib: maxMib,
  version,
  updater: toBytes('user', updaterId),
  update_time: updateTime,
});

function policyOf(row: Row): EgressPolicy {
  return {
    rules: typeof row.rules === 'string' ? JSON.parse(row.rules) : row.rules,
    maxConnections: row.max_connections,
    maxMib: row.max_mib,
    version: row.version,
    updaterId: fromBytes('user', row.updater),
    updateTime: row.update_time,
  };
}
