// Cancelling: what waits ends at once, what runs is told to stop and is killed after a grace period.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import type { Bus } from '#platform/bus.ts';
import type { Db, Tx } from '#platform/db.ts';
import { aborted, notFound, reasonsOf } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import { fromBytes } from '#platform/id.ts';
import { askToStop, endWaiting } from './engine/leave.ts';
import { isFinal } from './engine/machine.ts';
import * as notices from './engine/notices.ts';
import { ring } from './engine/tickets.ts';
import * as store from './store.ts';

// `graceMs`: how long it may take to stop before it is killed; undefined means as long as servers give.
export type Cancel = (workspace: Buffer, id: Buffer, reason: string, graceMs?: number) => Promise<void>;

interface Deps {
  db: Db;
  bus: Bus;
  relay: { kick(): void };
}
interface Done {
  server?: Buffer; // to be told
  lanes?: Iterable<number>; // where a waiter got the slot
}

const LOOKS = 20; // it moves on between two looks only so often
const REPEATABLE = new Set([1213, 1205]); // deadlock, lock wait timeout
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export const openCancel = ({ db, bus, relay }: Deps): Cancel => {
  const told = (id: Buffer, { server, lanes }: Done): void => {
    if (lanes) {
      relay.kick();
      ring(bus, lanes);
    }
    if (server) bus.notify(notices.cancel(fromBytes('server', server)));
    if (server || lanes) bus.notify(notices.changed(fromBytes('execution', id)));
  };
  return async (workspace, id, reason, graceMs) => {
    for (let look = 0; look < LOOKS; look += 1) {
      const done = await db.transaction((tx) => cancelOnce(tx, workspace, id, reason, graceMs)).catch(unlessRepeatable);
      failpoint('cancel.after_commit');
      if (done) return told(id, done);
    }
    throw aborted(`execution ${fromBytes('execution', id)} moves on too fast to be cancelled: try again`);
  };
};

// Undefined: it moved while it was looked for.
async function cancelOnce(tx: Tx, workspace: Buffer, id: Buffer, reason: string, graceMs: number | undefined): Promise<Done | undefined> {
  const connection = { query: (sql: string) => tx.raw(sql) };
  const found = await store.standing(tx, workspace, id);
  const name = fromBytes('execution', id);
  if (!found) throw notFound('execution', name);
  if (found.state === 'CANCELLED' || (found.running_state === 'CANCELLING' && graceMs === undefined)) return {};
  if (isFinal(found.state)) throw faults.failedPrecondition('EXECUTION_ENDED', `execution ${name} has already ended`, { id: name });
  const server = await askToStop(connection, id, reason, graceMs);
  failpoint('cancel.asked');
  if (server) return { server };
  if (found.running_state === 'CANCELLING') return {}; // it ends as soon anyway
  const { ended, lanes } = await endWaiting(connection, [{ execution: id, to: 'CANCELLED', reason }]);
  failpoint('cancel.before_commit');
  return ended.size > 0 ? { lanes } : undefined;
}

function unlessRepeatable(error: unknown): undefined {
  if (!REPEATABLE.has((error as { errno?: number }).errno ?? 0)) throw error;
}
