// ExecutionService, but for its streams.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { Execution, Execution_State } from '#gen/millrace/executions/v1/execution.ts';
import type { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import type { Pool } from '#platform/db.ts';
import { reasonsOf } from '#platform/errors.ts';
import type { Call, Handlers } from '#platform/handlers.ts';
import { fromBytes, newBytes, toBytes } from '#platform/id.ts';
import { cutPage, decodePage, encodePage, pageSize } from '#platform/paging.ts';
import type { Cancel } from '../cancel.ts';
import type { Create } from '../create.ts';
import { isFinal } from '../engine/machine.ts';
import * as notices from '../engine/notices.ts';
import { endIn } from '../events.ts';
import { attemptOf, draftAgain, draftOf, type StateName } from '../execution.ts';
import type { Hearing } from '../hearing.ts';
import { openPulse } from '../pulse.ts';
import type { Reads } from '../reads.ts';
import * as store from '../store.ts';

export interface Deps {
  pool: Pool;
  bus: Hearing;
  reads: Reads;
  create: Create;
  cancel: Cancel;
  lookMs: number; // notices may be lost
}
type Streams = 'watchExecution' | 'tailExecutionLogs';

const WAIT_MS = 60_000;
const ANSWER_MS = 250; // kept of the caller's deadline for the answer
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export const handlers = ({ pool, reads, create, cancel, bus, lookMs }: Deps): Omit<Handlers<ExecutionServiceService>, Streams> => ({
  async createExecution({ execution = Execution.fromPartial({}) }, call) {
    return create(draftOf(execution), call);
  },

  async runAndWait({ execution = Execution.fromPartial({}), wait }, call) {
    const until = waitUntil(wait, call);
    const id = newBytes();
    const pulse = openPulse(bus, [notices.changed(fromBytes('execution', id))]);
    try {
      let found = await create(draftOf(execution), call, id);
      for (let seen = 0; isOpen(found) && performance.now() < until && !call.signal.aborted; ) {
        await pulse.wait(seen, call.signal, Math.min(lookMs, until - performance.now()));
        seen = pulse.count();
        found = endIn(pulse.news(), found) ?? (await reads.get(call.caller.workspace, found.id));
      }
      await reads.answered(found);
      return found;
    } finally {
      pulse.close();
    }
  },

  async getExecution({ id }, { caller }) {
    return reads.get(caller.workspace, id);
  },

  async listExecutions({ pageSize: asked, pageToken, ...query }, { caller }) {
    const workspace = toBytes('workspace', caller.workspace);
    const before = decodePage<string>(pageToken, query);
    const size = pageSize(asked);
    const states = query.states.map((state) => nameOf(state));
    const rows = await store.list(pool, workspace, await store.lanes(pool, workspace), {
      states,
      automation: query.automationId ? toBytes('automation', query.automationId, 'automation_id') : undefined,
      from: query.createTimeFrom,
      to: query.createTimeTo,
      before: before === undefined ? undefined : toBytes('execution', before, 'page_token'),
      limit: size + 1,
    });
    const { items, last } = cutPage(await Promise.all(rows.map(reads.message)), size, Execution);
    return {
      executions: states.length === 0 ? items : items.filter(({ state }) => query.states.includes(state)), // some may have moved on meanwhile
      nextPageToken: last ? encodePage(query, last.id) : '',
    };
  },

  async cancelExecution({ id, reason, grace }, { caller }) {
    await cancel(toBytes('workspace', caller.workspace), toBytes('execution', id), reason, grace && msOf(grace));
    return reads.get(caller.workspace, id);
  },

  async retryExecution({ id, input }, call) {
    const row = await reads.row(call.caller.workspace, id);
    if (!isFinal(row.state)) throw notEnded(id);
    return create(draftAgain(await store.withResults(pool, row.workspace, row), input), call);
  },

  async getExecutionResult({ id }, { caller }) {
    const found = await reads.get(caller.workspace, id);
    if (isOpen(found)) throw notEnded(id);
    const { state, output } = found;
    return { executionId: id, state, output, error: state === Execution_State.SUCCEEDED ? undefined : found.error };
  },

  async listAttempts({ id }, { caller }) {
    const { workspace, id: key } = await reads.row(caller.workspace, id);
    return { attempts: (await store.attempts(pool, workspace, key)).map(attemptOf) };
  },
});

const isOpen = ({ state }: Execution): boolean => !isFinal(nameOf(state));

const nameOf = (state: Execution_State): StateName => STATE_NAMES.get(state) ?? 'QUEUED';
const STATE_NAMES = new Map(Object.entries(Execution_State).map(([name, state]) => [state, name as StateName]));

const notEnded = (id: string) => faults.failedPrecondition('EXECUTION_NOT_ENDED', `execution ${id} has not ended yet`, { id });

const msOf = ({ seconds, nanos }: { seconds: number; nanos: number }): number => seconds * 1000 + nanos / 1e6;

function waitUntil(wait: { seconds: number; nanos: number } | undefined, { deadline }: Call): number {
  const asked = wait ? msOf(wait) : WAIT_MS;
  const left = deadline ? deadline.getTime() - Date.now() - ANSWER_MS : asked;
  return performance.now() + Math.min(asked, left);
}
