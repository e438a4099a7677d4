// change.ts: the one way in which a person changes a schedule: its row locked, the change kept and published in one transaction.
import type { Schedule } from '#gen/millrace/schedules/v1/schedule.ts';
import type { Db, Tx } from '#platform/db.ts';
import { type Event, emit } from '#platform/outbox.ts';
import type { Actor } from './events.ts';
import type { Kept } from './schedule.ts';
import * as schedules from './store/schedules.ts';

// `next` answers a schedule of the same version to leave it as it is.
export const change = (
  db: Db,
  actor: Actor,
  id: string,
  event: (schedule: Schedule, actor: Actor) => Event,
  next: (kept: Kept, now: Date, tx: Tx) => Kept | Promise<Kept>,
): Promise<Kept> =>
  db.transaction(async (tx) => {
    const before = await schedules.lock(tx, actor.workspace, id);
    const after = await next(before, await schedules.clock(tx), tx);
    if (after.schedule.version === before.schedule.version) return after;
    await schedules.save(tx, actor.workspace, before, after);
    await emit(tx, event(after.schedule, actor));
    return after;
  });
