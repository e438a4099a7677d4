// ExecutionService's streams: an execution as it changes, and its log.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { type Execution, Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import type {
  ExecutionServiceService,
  TailExecutionLogsResponse,
  WatchExecutionResponse,
} from '#gen/millrace/executions/v1/execution_service.ts';
import { Fault, reasonsOf } from '#platform/errors.ts';
import { faultOf } from '#platform/faults.ts';
import type { Handlers } from '#platform/handlers.ts';
import type { Logger } from '#platform/log.ts';
import { withKeepAlive } from '#platform/stream.ts';
import { parseCursor } from '../engine/log-codec.ts';
import * as notices from '../engine/notices.ts';
import { endIn } from '../events.ts';
import { stateOf } from '../execution.ts';
import type { Hearing } from '../hearing.ts';
import { type Position, START } from '../log.ts';
import { openPulse, type Pulse } from '../pulse.ts';
import type { Reads } from '../reads.ts';
import type { Tails } from '../tail.ts';

export interface Deps {
  bus: Hearing;
  log: Logger;
  reads: Reads;
  tails: Tails;
  keepAliveMs: number;
}
type Streams = Pick<Handlers<ExecutionServiceService>, 'watchExecution' | 'tailExecutionLogs'>;

const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export const handlers = (deps: Deps): Streams => {
  const { bus, reads, tails, keepAliveMs } = deps;
  const keepAlive = () => ({ keepAlive: {} });

  // The state now, when it can still be read.
  const stateNow = async (workspace: string, id: string): Promise<Execution_State> =>
    reads.row(workspace, id).then(
      (row) => Execution_State[stateOf(row)],
      () => Execution_State.STATE_UNSPECIFIED,
    );

  // The last frame of a stream that has begun. A caller that has gone needs none.
  async function* ending(workspace: string, id: string, signal: AbortSignal, error?: unknown, known?: Execution_State) {
    if (signal.aborted && !(signal.reason instanceof Fault)) return;
    const why = error ?? (signal.aborted ? signal.reason : undefined); // the server stops
    const { code, message } = why === undefined ? { code: 0, message: '' } : faultOf(why);
    if (error && !(error instanceof Fault)) deps.log.warn({ error, id }, 'a stream broke off');
    yield { end: { code, message, state: known ?? (await stateNow(workspace, id)) } };
  }

  async function* changes(workspace: string, first: Execution, pulse: Pulse, signal: AbortSignal): AsyncGenerator<WatchExecutionResponse> {
    const { id } = first;
    try {
      let last: Execution_State | undefined;
      for (let told = '', seen = 0, execution = first; !signal.aborted; ) {
        const text = JSON.stringify(execution);
        if (text !== told) yield { execution };
        told = text;
        if (execution.endTime) {
          await reads.answered(execution);
          last = execution.state;
          break;
        }
        await pulse.wait(seen, signal, keepAliveMs);
        if (signal.aborted) break;
        seen = pulse.count();
        execution = endIn(pulse.news(), execution) ?? { ...(await reads.get(workspace, id)), input: undefined };
      }
      yield* ending(workspace, id, signal, undefined, last);
    } catch (error) {
      yield* ending(workspace, id, signal, error);
    }
  }

  async function* frames(
    workspace: string,
    id: string,
    key: Buffer,
    from: Position,
    follow: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<TailExecutionLogsResponse> {
    try {
      yield* tails.frames(key, from, follow, signal);
      yield* ending(workspace, id, signal);
    } catch (error) {
      yield* ending(workspace, id, signal, error);
    }
  }

  return {
    async *watchExecution({ id }, { caller, signal }) {
      const pulse = openPulse(bus, [notices.changed(id)]);
      try {
        const first = { ...(await reads.get(caller.workspace, id)), input: undefined };
        yield* withKeepAlive(changes(caller.workspace, first, pulse, signal), keepAliveMs, keepAlive, signal);
      } finally {
        pulse.close();
      }
    },

    async *tailExecutionLogs({ id, cursor, follow }, { caller, signal }) {
      const row = await reads.row(caller.workspace, id);
      const from = cursor === '' ? START : await after(tails, row.id, cursor);
      yield* withKeepAlive(frames(caller.workspace, id, row.id, from, follow, signal), keepAliveMs, keepAlive, signal);
    },
  };
};

async function after(tails: Tails, execution: Buffer, cursor: string): Promise<Position> {
  const seen = parseCursor(cursor);
  if (seen && (await tails.has(execution, seen))) return { attempt: seen.attempt, seq: seen.seq + 1 };
  throw faults.invalid('CURSOR_INVALID', 'the cursor is not one of this log: send the cursor of an entry, or none to start over', [
    { field: 'cursor', description: 'must be the cursor of an entry of this log' },
  ]);
}
