// store/variables.ts: variables in the database, by workspace.
import type { Variable } from '#gen/millrace/automations/v1/variable.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { aborted, notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { faults } from '../automation.ts';

interface Row {
  id: Buffer;
  name: string;
  description: string;
  value: string;
  creator: Buffer;
  create_time: Date;
  update_time: Date;
  version: number;
}

const COLUMNS = ['id', 'name', 'description', 'value', 'creator', 'create_time', 'update_time', 'version'];

const variablesOf = (db: Db, workspace: string): Knex.QueryBuilder => db('variables').where({ workspace: toBytes('workspace', workspace) });
const variableOf = (db: Db, workspace: string, id: string) => variablesOf(db, workspace).where({ id: toBytes('variable', id) });

export async function insert(tx: Tx, workspace: string, variable: Variable): Promise<void> {
  const key = { workspace: toBytes('workspace', workspace), id: toBytes('variable', variable.id), name: variable.name };
  const made = { creator: toBytes('user', variable.creatorId), create_time: variable.createTime };
  try {
    await tx('variables').insert({ ...key, ...made, ...changeable(variable) });
  } catch (error) {
    if ((error as { code?: string }).code !== 'ER_DUP_ENTRY') throw error;
    const { name } = variable;
    throw faults.alreadyExists('NAME_TAKEN', `there is a variable called ${name} in this workspace: change it, or choose another name`, {
      name,
    });
  }
}

export async function get(db: Db, workspace: string, id: string): Promise<Variable> {
  const row: Row | undefined = await variableOf(db, workspace, id).first(COLUMNS);
  if (!row) throw notFound('variable', id);
  return toVariable(row);
}

// The variable, which nobody else can change before the transaction ends.
export async function lock(tx: Tx, workspace: string, id: string): Promise<Variable> {
  const row: Row | undefined = await variableOf(tx, workspace, id).forUpdate().first(COLUMNS);
  if (!row) throw notFound('variable', id);
  return toVariable(row);
}

export async function count(db: Db, workspace: string): Promise<number> {
  const [row] = await variablesOf(db, workspace).count({ n: '*' });
  return Number(row?.n ?? 0);
}

// Up to `limit` variables by name, after that name.
export async function list(db: Db, workspace: string, name: string, after: string | undefined, limit: number): Promise<Variable[]> {
  const query = variablesOf(db, workspace).select(COLUMNS).orderBy('name').limit(limit);
  if (name !== '') query.where({ name });
  if (after !== undefined) query.where('name', '>', after);
  const rows: Row[] = await query;
  return rows.map(toVariable);
}

export async function save(tx: Tx, workspace: string, before: Variable, after: Variable): Promise<void> {
  const count = await variableOf(tx, workspace, after.id).where({ version: before.version }).update(changeable(after));
  if (count !== 1) throw aborted(`variable ${after.id} changed at the same time: read it again`);
}

export async function remove(tx: Tx, workspace: string, id: string): Promise<void> {
  if ((await variableOf(tx, workspace, id).delete()) === 0) throw notFound('variable', id);
}

export async function named(db: Db, workspace: string, names: readonly string[]): Promise<Variable[]> {
  if (names.length === 0) return [];
  const rows: Row[] = await variablesOf(db, workspace).whereIn('name', names).select(COLUMNS);
  return rows.map(toVariable);
}

const changeable = (variable: Variable) => ({
  description: variable.description ?? '',
  value: JSON.stringify(variable.value),
  update_time: variable.updateTime,
  version: variable.version,
});

const toVariable = (row: Row): Variable => ({
  id: fromBytes('variable', row.id),
  name: row.name,
  description: row.description || undefined,
  value: JSON.parse(row.value),
  creatorId: fromBytes('user', row.creator),
  createTime: row.create_time,
  updateTime: row.update_time,
  version: row.version,
});
