// ControlService: steers executions and says why they are where they are.
import { type ControlServiceService, ExecutionFilter, type WatchExecutionsResponse } from '#gen/millrace/executions/v1/control_service.ts';
import { Fault } from '#platform/errors.ts';
import { faultOf } from '#platform/faults.ts';
import type { Handlers } from '#platform/handlers.ts';
import { toBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { withKeepAlive } from '#platform/stream.ts';
import type { Bulk } from '../bulk.ts';
import { FINAL, OPEN } from '../execution.ts';
import type { Explain } from '../explain.ts';
import { wantedBy } from '../filter.ts';
import type { Hold } from '../hold.ts';
import type { Reads } from '../reads.ts';
import { decodeCursor, type Watch } from '../watch.ts';

export interface Deps {
  reads: Reads;
  explain: Explain;
  hold: Hold;
  bulk: Bulk;
  watch: Watch;
  keepAliveMs: number;
}

export const handlers = ({ reads, explain, hold, bulk, watch, keepAliveMs }: Deps): Handlers<ControlServiceService> => ({
  async explainExecution({ id }, { caller }) {
    return explain(caller.workspace, id);
  },

  async pauseExecution({ id }, { caller }) {
    await hold.pause(toBytes('workspace', caller.workspace), toBytes('execution', id));
    return reads.get(caller.workspace, id);
  },

  async resumeExecution({ id }, { caller }) {
    await hold.resume(toBytes('workspace', caller.workspace), toBytes('execution', id));
    return reads.get(caller.workspace, id);
  },

  async cancelExecutions(request, call) {
    return bulk.cancel(request, call);
  },

  async retryExecutions(request, call) {
    return bulk.retry(request, call);
  },

  async *watchExecutions({ filter, cursor }, { caller, signal, log }) {
    const wanted = wantedBy(filter ?? ExecutionFilter.fromPartial({}), [...OPEN, ...FINAL], []);
    const watching = await watch(toBytes('workspace', caller.workspace), wanted, decodeCursor(cursor));
    const keepAlive = () => ({ keepAlive: {}, cursor: watching.cursor() });
    yield* withKeepAlive(ending(watching.frames(signal), watching.cursor, signal, log), keepAliveMs, keepAlive, signal);
  },
});

// The frames, and the last one when they end by a fault or because the server stops. A caller that has gone needs none.
async function* ending(
  frames: AsyncIterable<WatchExecutionsResponse>,
  cursor: () => string,
  signal: AbortSignal,
  log: Logger,
): AsyncGenerator<WatchExecutionsResponse> {
  let why: unknown;
  try {
    yield* frames;
    why = signal.reason;
  } catch (error) {
    why = error;
    if (!(error instanceof Fault)) log.warn({ error }, 'a watch broke off');
  }
  if (signal.aborted && !(signal.reason instanceof Fault)) return;
  const { code, message } = faultOf(why);
  yield { end: { code, message, state: 0 }, cursor: cursor() };
}
