// store/secrets.ts: secrets in the database, by workspace. What is answered as a Secret never holds a value.
import { Secret } from '#gen/millrace/automations/v1/secret.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { faults } from '../automation.ts';
import type { Sealed } from '../secret-vault.ts';

interface Row {
  id: Buffer;
  name: string;
  description: string;
  automations: string;
  users: string;
  value_version: number;
  value_time: Date;
  value_creator: Buffer;
  creator: Buffer;
  create_time: Date;
  update_time: Date;
  version: number;
}
// A secret with its value, sealed.
export interface Kept {
  secret: Secret;
  sealed: Sealed;
}

const COLUMNS = [
  ...['id', 'name', 'description', 'automations', 'users', 'value_version', 'value_time', 'value_creator', 'creator'],
  ...['create_time', 'update_time', 'version'],
];

const secretsOf = (db: Db, workspace: string): Knex.QueryBuilder => db('secrets').where({ workspace: toBytes('workspace', workspace) });
const secretOf = (db: Db, workspace: string, id: string) => secretsOf(db, workspace).where({ id: toBytes('secret', id) });

export async function insert(tx: Tx, workspace: string, secret: Secret, sealed: Sealed): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('secret', secret.id), name: secret.name };
  const made = { creator: toBytes('user', secret.creatorId), create_time: secret.createTime };
  try {
    await tx('secrets').insert({ ...key, ...made, ...changeable(secret), ...sealedOf(secret, sealed) });
  } catch (error) {
    if ((error as { code?: string }).code !== 'ER_DUP_ENTRY') throw error;
    const { name } = secret;
    throw faults.alreadyExists('NAME_TAKEN', `there is a secret called ${name} in this workspace: rotate it, or choose another name`, {
      name,
    });
  }
}

export async function get(db: Db, workspace: string, id: string): Promise<Secret> {
  const row: Row | undefined = await secretOf(db, workspace, id).first(COLUMNS);
  if (!row) throw notFound('secret', id);
  return toSecret(row);
}

// The secret, which nobody else can change before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string): Promise<Secret> {
  const row: Row | undefined = await secretOf(tx, workspace, id).forUpdate().first(COLUMNS);
  if (!row) throw notFound('secret', id);
  return toSecret(row);
}

export async function count(db: Db, workspace: string): Promise<number> {
  const [row] = await secretsOf(db, workspace).count({ n: '*' });
  return Number(row?.n ?? 0);
}

// Up to `limit` secrets by name, after that name.
export async function list(db: Db, workspace: string, name: string, after: string | undefined, limit: number): Promise<Secret[]> {
  const query = secretsOf(db, workspace).select(COLUMNS).orderBy('name').limit(limit);
  if (name !== '') query.where({ name });
  if (after !== undefined) query.where('name', '>', after);
  const rows: Row[] = await query;
  return rows.map(toSecret);
}

// `sealed`: another value, in the place of the one before.
export async function save(tx: Tx, workspace: string, before: Secret, after: Secret, sealed?: Sealed): Promise<void> {
  const count = await secretOf(tx, workspace, after.id)
    .where({ version: before.version })
    .update({ ...changeable(after), ...(sealed ? sealedOf(after, sealed) : {}) });
  if (count !== 1) throw aborted(`secret ${after.id} changed at the same time: read it again`);
}

export async function remove(tx: Tx, workspace: string, id: string): Promise<void> {
  if ((await secretOf(tx, workspace, id).delete()) === 0) throw notFound('secret', id);
}

// Those of these names, with their values as they are kept.
export async function named(db: Db, workspace: string, names: readonly string[]): Promise<Kept[]> {
  if (names.length === 0) return [];
  const rows: (Row & { key_id: string; wrapped_key: Buffer; sealed: Buffer })[] = await secretsOf(db, workspace)
    .whereIn('name', names)
    .select(...COLUMNS, 'key_id', 'wrapped_key', 'sealed');
  return rows.map((row) => ({
    secret: toSecret(row),
    sealed: { keyId: row.key_id, wrappedKey: row.wrapped_key, sealed: row.sealed },
  }));
}

const changeable = (secret: Secret) => ({
  description: secret.description ?? '',
  automations: JSON.stringify(secret.automationIds),
  users: JSON.stringify(secret.userIds),
  update_time: secret.updateTime,
  version: secret.version,
});

const sealedOf = (secret: Secret, { keyId, wrappedKey, sealed }: Sealed) => ({
  value_version: secret.valueVersion,
  value_time: secret.valueTime,
  value_creator: toBytes('user', secret.valueCreatorId),
  key_id: keyId,
  wrapped_key: wrappedKey,
  sealed,
});

const toSecret = (row: Row): Secret => ({
  ...Secret.fromPartial({}),
  id: fromBytes('secret', row.id),
  name: row.name,
  description: row.description || undefined,
  automationIds: JSON.parse(row.automations),
  userIds: JSON.parse(row.users),
  valueVersion: row.value_version,
  valueTime: row.value_time,
  valueCreatorId: fromBytes('user', row.value_creator),
  creatorId: fromBytes('user', row.creator),
  createTime: row.create_time,
  updateTime: row.update_time,
  version: row.version,
});
