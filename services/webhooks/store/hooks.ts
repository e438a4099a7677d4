// store/hooks.ts: hooks in the database. Every function takes the workspace and neither answers nor touches what belongs to another.

import {
  type Hook,
  HookAuth,
  hook_PresetFromJSON as presetFromJSON,
  hook_PresetToJSON as presetToJSON,
} from '#gen/millrace/webhooks/v1/hook.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';

export interface Row {
  workspace: Buffer;
  id: Buffer;
  name: string;
  automation: Buffer;
  revision: number;
  preset: string;
  auth: string;
  filter: string;
  input: string;
  delivery_id: string;
  synchronous: number;
  wait_ms: number | null;
  disabled: number;
  secret_create_time: Date;
  previous_until: Date | null;
  creator: Buffer;
  run_as: Buffer | null; // null: the creator
  create_time: Date;
  update_time: Date;
  version: number;
}

export const COLUMNS = [
  ...['workspace', 'id', 'name', 'automation', 'revision', 'preset', 'auth', 'filter', 'input', 'delivery_id', 'synchronous', 'wait_ms'],
  ...['disabled', 'secret_create_time', 'previous_until', 'creator', 'run_as', 'create_time', 'update_time', 'version'],
];

export async function insert(tx: Tx, workspace: string, hook: Hook, sealed: Buffer): Promise<void> {
  await tx('hooks').insert({
    workspace: toBytes('workspace', workspace),
    id: toBytes('hook', hook.id),
    preset: presetToJSON(hook.preset),
    creator: toBytes('user', hook.creatorId),
    create_time: hook.createTime,
    secret: sealed,
    ...changeable(hook),
  });
}

export async function get(db: Db, workspace: string, id: string, field = 'id'): Promise<Hook> {
  const row: Row | undefined = await hookOf(db, workspace, id, field).first(COLUMNS);
  if (!row) throw notFound('hook', id);
  return toHook(row);
}

// The hook, which nobody else can change before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string): Promise<Hook> {
  const row: Row | undefined = await hookOf(tx, workspace, id).forUpdate().first(COLUMNS);
  if (!row) throw notFound('hook', id);
  return toHook(row);
}

export async function count(db: Db, workspace: string): Promise<number> {
  const [row] = await db('hooks')
    .where({ workspace: toBytes('workspace', workspace) })
    .count({ n: '*' });
  return Number(row?.n ?? 0);
}

// Up to `limit` hooks after the one named, the newest first: ids sort by time.
export async function list(db: Db, workspace: string, automationId: string, after: string | undefined, limit: number): Promise<Hook[]> {
  const query = db('hooks')
    .where({ workspace: toBytes('workspace', workspace) })
    .select(COLUMNS)
    .orderBy('id', 'desc')
    .limit(limit);
  if (automationId !== '') query.where({ automation: toBytes('automation', automationId, 'automationId') });
  if (after) query.where('id', '<', toBytes('hook', after));
  const rows: Row[] = await query;
  return rows.map(toHook);
}

// `sealed`: its new secret; the one that it had is kept beside it.
export async function save(tx: Tx, workspace: string, before: Hook, after: Hook, sealed?: Buffer): Promise<void> {
  const secrets = sealed ? { previous_secret: after.previousSecretExpireTime ? tx.ref('secret') : null, secret: sealed } : {};
  const count = await hookOf(tx, workspace, after.id)
    .where({ version: before.version })
    .update({ ...secrets, ...changeable(after) }); // MySQL sets from left to right: the old secret moves first
  if (count !== 1) throw aborted(`hook ${after.id} changed at the same time: read it again`);
}

export async function remove(tx: Tx, workspace: string, id: string): Promise<void> {
  const count = await hookOf(tx, workspace, id).delete();
  if (count !== 1) throw notFound('hook', id);
}

const hookOf = (db: Db, workspace: string, id: string, field = 'id'): Knex.QueryBuilder =>
  db('hooks').where({ workspace: toBytes('workspace', workspace), id: toBytes('hook', id, field) });

const changeable = (hook: Hook) => ({
  name: hook.name,
  automation: toBytes('automation', hook.automationId, 'hook.automationId'),
  revision: hook.revision,
  auth: JSON.stringify(HookAuth.toJSON(hook.auth ?? HookAuth.fromPartial({}))),
  filter: hook.filter,
  input: hook.input,
  delivery_id: hook.deliveryId,
  synchronous: hook.synchronous,
  wait_ms: hook.wait ? hook.wait.seconds * 1000 + Math.round(hook.wait.nanos / 1e6) : null,
  disabled: hook.disabled,
  run_as: toBytes('user', hook.runAsId),
  secret_create_time: hook.secretCreateTime,
  previous_until: hook.previousSecretExpireTime ?? null,
  update_time: hook.updateTime,
  version: hook.version,
});

export const toHook = (row: Row): Hook => {
  const id = fromBytes('hook', row.id);
  return {
    id,
    name: row.name,
    automationId: fromBytes('automation', row.automation),
    revision: row.revision,
    preset: presetFromJSON(row.preset),
    auth: HookAuth.fromJSON(JSON.parse(row.auth)),
    filter: row.filter,
    input: row.input,
    deliveryId: row.delivery_id,
    synchronous: row.synchronous === 1,
    wait: row.wait_ms === null ? undefined : { seconds: Math.floor(row.wait_ms / 1000), nanos: (row.wait_ms % 1000) * 1e6 },
    disabled: row.disabled === 1,
    path: `/hooks/${id}`,
    secret: '',
    secretCreateTime: row.secret_create_time,
    previousSecretExpireTime: row.previous_until ?? undefined,
    creatorId: fromBytes('user', row.creator),
    runAsId: fromBytes('user', row.run_as ?? row.creator),
    createTime: row.create_time,
    updateTime: row.update_time,
    version: row.version,
  };
};
