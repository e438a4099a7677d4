// change.ts: the one way in which a task changes: its row locked, the change kept and published in one transaction, watchers told after it.
import type { Task } from '#gen/millrace/tasks/v1/task.ts';
import type { Bus } from '#platform/bus.ts';
import type { Db, Tx } from '#platform/db.ts';
import { emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import * as tasks from './store/tasks.ts';

export interface Deps {
  db: Db;
  bus: Bus;
  clock: () => Date;
}

// `next` answers the same task to leave it as it is.
export async function change(
  { db, bus, clock }: Deps,
  actor: events.Actor,
  id: string,
  next: (task: Task, now: Date, tx: Tx) => Task | Promise<Task>,
): Promise<Task> {
  const [before, after] = await db.transaction(async (tx) => {
    const before = await tasks.lock(tx, actor.workspace, id);
    const after = await next(before, clock(), tx);
    if (after !== before) {
      await tasks.save(tx, actor.workspace, before, after);
      await emit(tx, events.changed(before, after, actor));
    }
    return [before, after];
  });
  if (after !== before) events.notice(bus, actor.workspace, id);
  return after;
}
