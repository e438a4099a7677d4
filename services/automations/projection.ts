// projection.ts: keeps what executions know of automations up to date.
//
// A change is committed first, with the time at which executions are to be told of it at the latest. They are told at once, before the
// caller has the answer; when that fails the caller learns so, and the worker goes on telling until they know.
import type { ProjectionServiceService } from '#gen/millrace/executions/v1/projection_service.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Db } from '#platform/db.ts';
import { unavailable } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { every } from '#platform/pause.ts';
import * as system from './automation-system.ts';
import * as store from './store/projection.ts';

export interface Deps {
  db: Db;
  executions: ClientOf<ProjectionServiceService>;
  log: Logger;
}

const LOOK_MS = 1000;
const AT_ONCE = 20;
const DEADLINE_MS = 5000;

// Tells executions all that they do not know of an automation. UNAVAILABLE / DEPENDENCY_UNAVAILABLE when they do not answer in time.
export async function tell({ db, executions }: Deps, workspace: string, id: string, deadlineMs = DEADLINE_MS): Promise<void> {
  for (let request = await store.next(db, workspace, id); request; request = await store.next(db, workspace, id)) {
    await executions.applyAutomation(request, { deadlineMs }).catch((error) => {
      throw unavailable('the change is kept, but executions cannot be told of it now: repeat the call', 1000, error);
    });
    await store.known(db, workspace, request);
  }
}

// Tells what could not be told, until stopped.
export const keepTelling = (deps: Deps): (() => Promise<void>) => every(LOOK_MS, () => tellDue(deps), deps.log);

async function tellDue(deps: Deps): Promise<void> {
  const due = await system.claimUntold(deps.db, AT_ONCE);
  const told = due.map(({ workspace, id }) => tell(deps, workspace, id));
  const failures = (await Promise.allSettled(told)).filter(({ status }) => status === 'rejected');
  if (failures.length > 0) deps.log.warn({ count: failures.length }, 'executions cannot be told of automations now');
}
