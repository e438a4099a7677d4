// What the tests of the engine share: the area's schema without its services, and executions as accepting writes them.
import { AutomationSpec } from '#gen/millrace/automations/v1/spec.ts';
import { type Db, openPool, type Pool, schemaOf } from '#platform/db.ts';
import { newBytes } from '#platform/id.ts';
import type { Module } from '#platform/module.ts';
import { startWorld, type World } from '../../../tests/world.ts';
import { nextTag } from './tags.ts';

export const schemaOnly: Module = {
  name: 'executions',
  migrations: new URL('../migrations/', import.meta.url),
  start: async () => async () => undefined,
};

export interface Schema {
  world: World;
  db: Db;
  pool: Pool;
  stop(): Promise<void>;
}

export async function startSchema(): Promise<Schema> {
  const world = await startWorld({ targets: ['executions'], modules: [schemaOnly] });
  const pool = openPool(world.config, schemaOf(world.config, 'executions'), 4);
  return {
    world,
    db: world.db('executions'),
    pool,
    async stop() {
      await pool.end();
      await world.stop();
    },
  };
}

export interface Planned {
  lane?: number;
  priority?: number;
  limitKey?: string | null;
  workspace?: Buffer;
  automation?: Buffer;
  revision?: number;
  input?: string | null;
  inMs?: number; // starts later
  expiresInMs?: number;
  waits?: boolean; // behind its limit
}

// Accepts many at once; answers their ids in order.
export async function accept(db: Db, planned: readonly Planned[]): Promise<Buffer[]> {
  const made = planned.map((one) => ({
    id: newBytes(),
    lane: 1,
    priority: 5,
    limitKey: null,
    workspace: newBytes(),
    automation: newBytes(),
    ...one,
  }));
  const now = db.raw('NOW(6)');
  const later = (ms: number) => db.raw('NOW(6) + INTERVAL ? MICROSECOND', [Math.round(ms * 1000)]);
  await db.transaction(async (tx) => {
    const executions = made.map(({ id, workspace, automation, revision = 1, priority, lane, limitKey, input = null, inMs }) => ({
      id,
      workspace,
      automation,
      revision,
      state: inMs === undefined ? 'QUEUED' : 'SCHEDULED',
      version: 1,
      creator: newBytes(),
      priority,
      lane,
      limit_key: limitKey,
      input,
      attempt_count: 0,
      create_time: now,
    }));
    await tx.batchInsert('executions', executions, 500);
    const standing = made.map(({ id, lane, priority, limitKey, expiresInMs = 86_400_000, inMs, waits }) => ({
      table: inMs !== undefined ? 'timers' : waits ? 'waiting' : 'ready',
      row: {
        ...(inMs !== undefined ? { due_time: later(inMs), kind: 'START' } : waits ? { seq: nextTag() } : { tag: nextTag() }),
        execution: id,
        lane,
        priority,
        limit_key: limitKey,
        attempt: 1,
        losses: 0,
        expire_time: later(expiresInMs),
      },
    }));
    for (const table of ['ready', 'waiting', 'timers']) {
      const rows = standing.filter((one) => one.table === table).map(({ row }) => row);
      await tx.batchInsert(table, rows, 500);
    }
    const holders = made.filter(({ limitKey, waits, inMs }) => limitKey && !waits && inMs === undefined);
    await tx.batchInsert('slots', holders.map(({ id, limitKey }) => ({ limit_key: limitKey, execution: id })), 500); // biome-ignore format: a line
  });
  return made.map(({ id }) => id);
}

// A revision as the projection keeps it.
export async function publish(db: Db, spec: object = {}): Promise<Buffer> {
  const automation = newBytes();
  const encoded = AutomationSpec.encode(AutomationSpec.fromPartial({ source: 'pass', ...spec })).finish();
  await db('revisions').insert({ automation, number: 1, spec: Buffer.from(encoded) });
  return automation;
}

// In how many of the four places each open execution stands, and how many ended ones still stand in one: none of both may be.
export async function breaches(db: Db): Promise<{ misplaced: number; slots: number }> {
  const places = ['ready', 'waiting', 'timers', 'running']
    .map((table) => `(SELECT COUNT(*) FROM ${table} p WHERE p.execution = e.id)`)
    .join(' + ');
  const isFinal = "e.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED')";
  const [[misplaced]] = await db.raw(`SELECT COUNT(*) AS n FROM executions e WHERE (${places}) <> IF(${isFinal}, 0, 1)`);
  const [[slots]] = await db.raw(
    'SELECT COUNT(*) AS n FROM limits l WHERE l.used <> (SELECT COUNT(*) FROM slots s WHERE s.limit_key = l.limit_key) OR l.used > l.max',
  );
  return { misplaced: misplaced.n, slots: slots.n };
}
