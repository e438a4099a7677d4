// change.ts: the one way in which an automation changes: its row locked, the change kept and published in one transaction, and executions
// told before the answer.
import type { Automation } from '#gen/millrace/automations/v1/automation.ts';
import type { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Tx } from '#platform/db.ts';
import { emit } from '#platform/outbox.ts';
import * as events from './events.ts';
import { type Deps as ProjectionDeps, tell } from './projection.ts';
import * as store from './store/automations.ts';

export interface Deps extends ProjectionDeps {
  clock: () => Date;
  runner: Pick<ClientOf<RunnerServiceService>, 'validateSource'>;
}

// `next` answers the same automation to leave it as it is. Executions are told in any case: an earlier call may have failed to.
export async function change(
  deps: Deps,
  actor: events.Actor,
  id: string,
  next: (automation: Automation, now: Date, tx: Tx) => Automation | Promise<Automation>,
): Promise<Automation> {
  await deps.db.transaction(async (tx) => {
    const before = await store.lock(tx, actor.workspace, id);
    const after = await next(before, deps.clock(), tx);
    if (after === before) return;
    await store.save(tx, actor.workspace, before, after);
    await emit(tx, events.changed(before, after, actor));
  });
  await tell(deps, actor.workspace, id);
  return store.get(deps.db, actor.workspace, id);
}
