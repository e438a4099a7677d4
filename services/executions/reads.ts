// Executions as callers see them. What is asked for at the same time is read in one statement.
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { openBatch } from '#platform/batch.ts';
import type { Pool } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { toBytes } from '#platform/id.ts';
import { type Fleet, fleetFor, fleetReason, messageOf, type Row, stateOf } from './execution.ts';
import type { LookAtFleet } from './fleet.ts';
import type { Revisions } from './revisions.ts';
import { labelsOf } from './selector.ts';
import * as store from './store.ts';

export interface Reads {
  row(workspace: string, id: string): Promise<Row>; // without an input or output that is too large for the row
  get(workspace: string, id: string): Promise<Execution>;
  message(row: Row): Promise<Execution>;
  answered(execution: Execution): Promise<void>; // to a caller, when `get` has not read it
}

export function openReads({ pool, fleet, revisions }: { pool: Pool; fleet: LookAtFleet; revisions: Revisions }): Reads {
  const batch = openBatch<{ workspace: Buffer; id: Buffer }, Row | undefined>({
    name: 'executions.get',
    run: (wanted) => store.getMany(pool, wanted) as Promise<Row[]>,
  });
  const message = async (row: Row): Promise<Execution> =>
    messageOf(row, stateOf(row) === 'QUEUED' ? (row.blocked ?? fleetReason(narrow(await fleet(), row))) : '');

  async function row(workspace: string, id: string): Promise<Row> {
    const found = await batch.add({ workspace: toBytes('workspace', workspace), id: toBytes('execution', id) });
    if (!found) throw notFound('execution', id);
    return found;
  }

  // What is to be erased once its result was read was read now.
  async function answered({ id, automationId, revision, endTime }: Execution): Promise<void> {
    if (!endTime) return;
    const key = { automation: toBytes('automation', automationId), number: revision };
    await revisions.load([key]);
    if (revisions.get(key)?.retention?.onRead) await store.used(pool, toBytes('execution', id));
  }

  return {
    row,
    message,
    answered,
    async get(workspace, id) {
      const found = await row(workspace, id);
      const whole = await store.withResults(pool, found.workspace, found);
      const execution = await message(whole);
      await answered(execution);
      return execution;
    },
  };
}

// Those that can run it.
export const narrow = ({ all, dispatchers }: Fleet, { selector }: Pick<Row, 'selector'>): Fleet =>
  fleetFor(all, dispatchers, labelsOf(selector));
