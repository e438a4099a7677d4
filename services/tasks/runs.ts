// runs.ts: brings to each task how its run goes on and ends.
//
// The event `execution.ended` makes a run due at once. Without it a run is due from time to time, so a lost event only delays: executions
// are asked, and their answer alone is kept.

import { Value } from '#gen/google/protobuf/struct.ts';
import { type ExecutionError, execution_StateToJSON } from '#gen/millrace/executions/v1/execution.ts';
import type { ExecutionServiceService, TailExecutionLogsResponse } from '#gen/millrace/executions/v1/execution_service.ts';
import type { TaskRun } from '#gen/millrace/tasks/v1/task.ts';
import type { ClientOf } from '#platform/client.ts';
import { Fault, unavailable } from '#platform/errors.ts';
import type { Logger } from '#platform/log.ts';
import { repeat } from '#platform/pause.ts';
import { type Deps as ChangeDeps, change } from './change.ts';
import type { Actor } from './events.ts';
import * as runs from './store/runs.ts';
import * as task from './task.ts';
import * as system from './task-system.ts';

export interface Deps extends ChangeDeps {
  executions: Pick<ClientOf<ExecutionServiceService>, 'getExecution' | 'tailExecutionLogs'>;
  log: Logger;
}

const AT_ONCE = 20;
const IDLE_MS = 1000;
const MAX_LOG_BYTES = 64 * 1024;
const MAX_OUTPUT_BYTES = 1024 * 1024; // as protobuf
const LOG_DEADLINE_MS = 60_000;

// Settles runs as they become due, until stopped. `wake` looks at once.
export function followRuns(deps: Deps): { wake(): void; stop(): Promise<void> } {
  const stopping = new AbortController();
  const { wake, stop } = repeat(IDLE_MS, () => settleDue(deps, stopping.signal), deps.log);
  return {
    wake,
    async stop() {
      stopping.abort();
      await stop();
    },
  };
}

async function settleDue(deps: Deps, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const due = await system.claimDueRuns(deps.db, AT_ONCE);
    await Promise.all(
      due.map((run) => settle(deps, run, signal).catch((error) => deps.log.warn({ error, run }, 'a run cannot be settled now'))),
    );
    if (due.length < AT_ONCE) return;
  }
}

// Executions are asked first: no transaction is open meanwhile.
async function settle(deps: Deps, { workspace, taskId, executionId, userId }: system.DueRun, signal: AbortSignal): Promise<void> {
  const actor = { user: userId, workspace };
  const run = await currentRun(deps, executionId, actor, signal);
  await change(deps, actor, taskId, async (before, now, tx) => {
    await runs.save(tx, workspace, run, task.hasRunEnded(run));
    return before.run?.executionId === executionId ? task.runMoved(before, run, now) : before;
  });
}

async function currentRun({ executions }: Deps, id: string, user: Actor, signal: AbortSignal): Promise<TaskRun> {
  const actor = { ...user, scopes: ['executions.read'] };
  try {
    const { state, output, error } = await executions.getExecution({ id }, { actor, signal });
    const run: TaskRun = { executionId: id, status: execution_StateToJSON(state), output: undefined, logs: '', error: '' };
    if (!task.hasRunEnded(run)) return run;
    const frames = executions.tailExecutionLogs({ id, cursor: '', follow: false }, { actor, signal, deadlineMs: LOG_DEADLINE_MS });
    return { ...run, output: fitting(output), logs: await lastLines(frames), error: textOf(error) };
  } catch (error) {
    if (!(error instanceof Fault && error.reason === 'RESOURCE_NOT_FOUND')) throw error;
    return { executionId: id, status: 'FAILED', output: undefined, logs: '', error: 'the execution is no longer kept: its end is unknown' };
  }
}

// A larger output stands in the execution alone, so that a task fits into a message.
const fitting = (output: unknown): unknown =>
  output === undefined || Value.encode(Value.wrap(output)).finish().length > MAX_OUTPUT_BYTES ? undefined : output;

const textOf = (error: ExecutionError | undefined): string => (error ? [error.type, error.message].filter(Boolean).join(': ') : '');

// The last 64 KiB of a log, which is read from its start.
export async function lastLines(frames: AsyncIterable<TailExecutionLogsResponse>): Promise<string> {
  let kept: Buffer[] = [];
  let bytes = 0;
  for await (const { entry, end } of frames) {
    if (end?.code === 0) return lastBytes(Buffer.concat(kept), MAX_LOG_BYTES).toString();
    if (!entry) continue;
    const line = Buffer.from(entry.partial ? entry.text : `${entry.text}\n`);
    kept.push(line);
    bytes += line.length;
    if (bytes < 4 * MAX_LOG_BYTES) continue;
    kept = [lastBytes(Buffer.concat(kept), MAX_LOG_BYTES)];
    bytes = MAX_LOG_BYTES;
  }
  throw unavailable('the log broke off before its end');
}

// At most `max` bytes from the end, without a cut character.
function lastBytes(text: Buffer, max: number): Buffer {
  let from = Math.max(0, text.length - max);
  while (from > 0 && isContinuation(text[from])) from += 1;
  return text.subarray(from);
}

const isContinuation = (byte: number | undefined): boolean => byte !== undefined && (byte & 0xc0) === 0x80;
