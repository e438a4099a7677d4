// Many executions at once: cancels or repeats what a filter finds, a page in each call, and counts what became of it.
import { createHash } from 'node:crypto';
import type {
  CancelExecutionsRequest,
  CancelExecutionsResponse,
  ExecutionFilter,
  RetryExecutionsRequest,
  RetryExecutionsResponse,
  RetryExecutionsResponse_Item,
} from '#gen/millrace/executions/v1/control_service.ts';
import type { Pool } from '#platform/db.ts';
import { Fault } from '#platform/errors.ts';
import type { Call } from '#platform/handlers.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { decodePage, encodePage } from '#platform/paging.ts';
import type { Cancel } from './cancel.ts';
import type { Create } from './create.ts';
import { draftAgain, FINAL, OPEN, type Row, type StateName } from './execution.ts';
import { mustFilter, wantedBy } from './filter.ts';
import * as store from './store.ts';

export interface Bulk {
  cancel(request: CancelExecutionsRequest, call: Call): Promise<CancelExecutionsResponse>;
  retry(request: RetryExecutionsRequest, call: Call): Promise<RetryExecutionsResponse>;
}
interface Deps {
  pool: Pool;
  create: Create;
  cancel: Cancel;
}
interface Asked {
  filter?: ExecutionFilter | undefined;
  pageSize: number;
  pageToken: string;
}

const PAGE = 100;
const AT_ONCE = 8;
const RETRIED: readonly StateName[] = ['FAILED', 'TIMED_OUT'];

export function openBulk({ pool, create, cancel }: Deps): Bulk {
  // A page of what the filter finds, and the token of the next one.
  async function page(asked: Asked, { caller }: Call, allowed: readonly StateName[], usual: readonly StateName[]) {
    const filter = asked.filter as ExecutionFilter; // required by the contract
    mustFilter(filter);
    const before = decodePage<string>(asked.pageToken, filter);
    const workspace = toBytes('workspace', caller.workspace);
    const size = asked.pageSize || PAGE;
    const rows = await store.list(pool, workspace, await store.lanes(pool, workspace), {
      ...wantedBy(filter, allowed, usual),
      before: before === undefined ? undefined : toBytes('execution', before, 'page_token'),
      limit: size + 1,
    });
    const found = rows.slice(0, size);
    const last = rows.length > size ? found.at(-1) : undefined;
    return { workspace, found, nextPageToken: last ? encodePage(filter, fromBytes('execution', last.id)) : '' };
  }

  async function again(workspace: Buffer, { id }: Row, call: Call): Promise<RetryExecutionsResponse_Item> {
    const executionId = fromBytes('execution', id);
    try {
      const [row] = await store.getMany(pool, [{ workspace, id }]);
      if (!row) throw new Error('an execution that was found is gone');
      const own = { ...call, requestId: `retry ${executionId}`, requestHash: createHash('sha256').update(id).digest() };
      const made = await create(draftAgain(await store.withResults(pool, workspace, row)), own);
      return { executionId, retryId: made.id, reason: '' };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      return { executionId, retryId: '', reason: error.reason };
    }
  }

  return {
    async cancel(request, call) {
      const { workspace, found, nextPageToken } = await page(request, call, OPEN, OPEN);
      const graceMs = request.grace && request.grace.seconds * 1000 + request.grace.nanos / 1e6;
      let endedCount = 0;
      await each(found, async ({ id }) => {
        await cancel(workspace, id, request.reason, graceMs).catch((error) => {
          if ((error as Fault).reason !== 'EXECUTION_ENDED') throw error;
          endedCount += 1;
        });
      });
      return { cancelledCount: found.length - endedCount, endedCount, nextPageToken };
    },

    async retry(request, call) {
      const { workspace, found, nextPageToken } = await page(request, call, FINAL, RETRIED);
      const items = await each(found, (row) => again(workspace, row, call));
      const refusedCount = items.filter(({ retryId }) => retryId === '').length;
      return { items, retriedCount: items.length - refusedCount, refusedCount, nextPageToken };
    },
  };
}

// A few at a time; the answers in order.
async function each<T, R>(all: readonly T[], work: (one: T) => Promise<R>): Promise<R[]> {
  const answers: R[] = [];
  const rest = all.entries();
  const worker = async () => {
    for (const [index, one] of rest) answers[index] = await work(one);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return answers;
}
