// From a call to an accepted execution.
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import type { Db, Pool } from '#platform/db.ts';
import type { Call } from '#platform/handlers.ts';
import { newBytes, toBytes } from '#platform/id.ts';
import { traceparent } from '#platform/outbox.ts';
import { type Accepted, type Asked, keyOf } from './accept.ts';
import { repeated } from './dead-store.ts';
import { laneOf } from './engine/lanes.ts';
import type { Draft } from './execution.ts';
import type { Reads } from './reads.ts';

interface Deps {
  db: Db;
  pool: Pool;
  reads: Reads;
  accept(asked: Asked): Promise<Accepted>;
}
export type Create = (draft: Draft, call: Call, id?: Buffer) => Promise<Execution>;

export const openCreate =
  ({ db, pool, reads, accept }: Deps): Create =>
  async (draft, call, id = newBytes()) => {
    const workspace = toBytes('workspace', call.caller.workspace, 'workspace');
    const asked = {
      id,
      workspace,
      creator: toBytes('user', call.caller.user, 'user'),
      lane: await laneOf(db, workspace),
      draft,
      key: keyOf(call),
      traceparent: traceparent(),
    };
    const made = await accept(asked);
    if (draft.retryOf) await repeated(pool, workspace, draft.retryOf, toBytes('execution', made.id), asked.creator);
    return made.row ? reads.message(made.row) : reads.get(call.caller.workspace, made.id);
  };
