// store/environments.ts: environments in the database, by workspace, each with how its build goes.
import { type Environment, Environment_State } from '#gen/millrace/automations/v1/environment.ts';
import type { Db, Knex, Tx } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { linesOf } from '../environment.ts';

export interface New {
  id: string;
  name: string;
  requirements: string;
  normal: string;
  digest: Buffer;
  platform: string;
  creatorId: string;
  createTime: Date;
}
interface Row {
  id: Buffer;
  name: string;
  requirements?: string; // left out of lists
  digest: Buffer;
  creator: Buffer;
  create_time: Date;
  state: keyof typeof Environment_State;
  error: string;
  problems?: string;
  packages: string;
  size_kib: number;
  end_time: Date | null;
}

const SUMMARY = [
  'e.id',
  'e.name',
  'e.digest',
  'e.creator',
  'e.create_time',
  'b.state',
  'b.error',
  'b.packages',
  'b.size_kib',
  'b.end_time',
];
const WHOLE = [...SUMMARY, 'e.requirements', 'b.problems'];

const environmentsOf = (db: Db, workspace: string): Knex.QueryBuilder =>
  db({ e: 'environments' }).join({ b: 'environment_builds' }, 'b.digest', 'e.digest').where('e.workspace', toBytes('workspace', workspace));

// With its build, unless somebody has asked for the same one before.
export async function insert(tx: Tx, workspace: string, made: New): Promise<void> {
  await tx('environment_builds')
    .insert({
      digest: made.digest,
      platform: made.platform,
      requirements: made.normal,
      ...{ state: 'QUEUED', queue_time: tx.raw('utc_timestamp(6)'), epoch: 0, losses: 0, builder: '', line_count: 0 },
      ...{ error: '', problems: '[]', packages: '[]', size_kib: 0 },
    })
    .onConflict('digest')
    .ignore();
  await tx('environments').insert({
    workspace: toBytes('workspace', workspace),
    id: toBytes('environment', made.id),
    name: made.name,
    requirements: made.requirements,
    digest: made.digest,
    creator: toBytes('user', made.creatorId),
    create_time: made.createTime,
  });
}

export async function get(db: Db, workspace: string, id: string): Promise<Environment> {
  const row: Row | undefined = await environmentsOf(db, workspace).where('e.id', toBytes('environment', id)).first(WHOLE);
  if (!row) throw notFound('environment', id);
  return toEnvironment(row);
}

// The newest one of a name.
export async function named(db: Db, workspace: string, name: string): Promise<{ digest: string; state: string } | undefined> {
  const row: Row | undefined = await environmentsOf(db, workspace).where('e.name', name).orderBy('e.id', 'desc').first(SUMMARY);
  return row && { digest: row.digest.toString('hex'), state: row.state };
}

export async function stateOf(db: Db, digest: string): Promise<string | undefined> {
  const row: { state: string } | undefined = await db('environment_builds')
    .where({ digest: Buffer.from(digest, 'hex') })
    .first('state');
  return row?.state;
}

// Up to `limit` environments before the id, the newest first.
export async function list(db: Db, workspace: string, name: string, before: string | undefined, limit: number): Promise<Environment[]> {
  const query = environmentsOf(db, workspace).select(SUMMARY).orderBy('e.id', 'desc').limit(limit);
  if (name !== '') query.where('e.name', name);
  if (before !== undefined) query.where('e.id', '<', toBytes('environment', before));
  const rows: Row[] = await query;
  return rows.map(toEnvironment);
}

export async function remove(db: Db, workspace: string, id: string): Promise<void> {
  const count = await db('environments')
    .where({ workspace: toBytes('workspace', workspace), id: toBytes('environment', id) })
    .delete();
  if (count === 0) throw notFound('environment', id);
}

// Queues a build that has ended.
export async function requeue(db: Db, digest: string): Promise<void> {
  await db('environment_builds')
    .where({ digest: Buffer.from(digest, 'hex') })
    .whereIn('state', ['READY', 'FAILED'])
    .update({ state: 'QUEUED', queue_time: db.raw('utc_timestamp(6)'), losses: 0, error: '', problems: '[]', end_time: null });
}

interface Problem {
  requirement: number;
  message: string;
}

function toEnvironment(row: Row): Environment {
  const problems: Problem[] = JSON.parse(row.problems ?? '[]');
  const lines = problems.length > 0 ? linesOf(row.requirements ?? '') : [];
  const isReady = row.state === 'READY';
  return {
    id: fromBytes('environment', row.id),
    name: row.name,
    requirements: row.requirements ?? '',
    digest: row.digest.toString('hex'),
    state: Environment_State[row.state],
    error: row.error,
    problems: problems.map(({ requirement, message }) => ({ line: lines[requirement] ?? 0, message })),
    packages: isReady ? JSON.parse(row.packages) : [],
    sizeKib: isReady ? row.size_kib : 0,
    creatorId: fromBytes('user', row.creator),
    createTime: row.create_time,
    buildTime: row.end_time ?? undefined,
  };
}
