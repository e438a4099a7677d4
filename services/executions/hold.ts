// Pausing and resuming: a person holds what waits, and lets it go on where it would stand by then.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import type { Bus } from '#platform/bus.ts';
import type { Db, Tx } from '#platform/db.ts';
import { aborted, notFound, reasonsOf } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import { fromBytes } from '#platform/id.ts';
import { hold, type Moved, release } from './engine/hold.ts';
import { isFinal, mayHold } from './engine/machine.ts';
import * as notices from './engine/notices.ts';
import type { LoadSpecs, Spec } from './engine/specs.ts';
import { ring } from './engine/tickets.ts';
import { stateOf } from './execution.ts';
import * as store from './store.ts';

export interface Hold {
  pause(workspace: Buffer, id: Buffer): Promise<void>;
  resume(workspace: Buffer, id: Buffer): Promise<void>;
}
interface Deps {
  db: Db;
  bus: Bus;
  specs: LoadSpecs;
}
type Found = NonNullable<Awaited<ReturnType<typeof store.standing>>>;
type Step = (tx: Tx, found: Found, spec: Spec, toClose: Date) => Promise<Moved | 'DONE' | undefined>;

const LOOKS = 20; // it moves on between two looks only so often
const REPEATABLE = new Set([1213, 1205]); // deadlock, lock wait timeout
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export function openHold({ db, bus, specs }: Deps): Hold {
  async function once(tx: Tx, workspace: Buffer, id: Buffer, step: Step): Promise<Moved | 'DONE' | undefined> {
    const name = fromBytes('execution', id);
    const found = await store.standing(tx, workspace, id);
    if (!found) throw notFound('execution', name);
    if (isFinal(found.state)) throw faults.failedPrecondition('EXECUTION_ENDED', `execution ${name} has already ended`, { id: name });
    const spec = (await specs([found]))(found);
    if (!spec) throw new Error(`execution ${name} has no revision`);
    const base = Math.max(found.create_time.getTime(), found.schedule_time?.getTime() ?? 0);
    const moved = await step(tx, found, spec, new Date(base + spec.scheduleToCloseMs));
    failpoint('hold.before_commit');
    return moved;
  }

  async function repeat(workspace: Buffer, id: Buffer, step: Step): Promise<void> {
    for (let look = 0; look < LOOKS; look += 1) {
      const moved = await db.transaction((tx) => once(tx, workspace, id, step)).catch(unlessRepeatable);
      failpoint('hold.after_commit');
      if (!moved) continue;
      if (moved === 'DONE') return;
      ring(bus, moved.lanes);
      if (moved.isTimed) bus.notify(notices.timers);
      bus.notify(notices.changed(fromBytes('execution', id)));
      return;
    }
    throw aborted(`execution ${fromBytes('execution', id)} moves on too fast: try again`);
  }

  return {
    pause: (workspace, id) =>
      repeat(workspace, id, async (tx, found, _, toClose) => {
        const state = stateOf(found);
        if (state === 'PAUSED') return 'DONE';
        if (mayHold(state)) return hold(connectionOf(tx), id, toClose);
        const name = fromBytes('execution', id);
        const message = `execution ${name} runs, and what runs cannot be paused: wait for its end, or cancel it`;
        throw faults.failedPrecondition('EXECUTION_RUNNING', message, { id: name });
      }),
    resume: (workspace, id) =>
      repeat(workspace, id, async (tx, found, { spec }, toClose) => {
        if (stateOf(found) !== 'PAUSED') return 'DONE';
        const toStart = spec.timeouts?.scheduleToStart;
        return release(connectionOf(tx), id, { toClose, toStartMs: toStart && toStart.seconds * 1000 + toStart.nanos / 1e6 });
      }),
  };
}

const connectionOf = (tx: Tx) => ({ query: (sql: string) => tx.raw(sql) });

function unlessRepeatable(error: unknown): undefined {
  if (!REPEATABLE.has((error as { errno?: number }).errno ?? 0)) throw error;
}
