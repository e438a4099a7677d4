// start.ts: makes the execution of a delivery that was kept, now or by the worker, and only one: every try has the same idempotency key
// and asks for the same execution.

import { status } from '@grpc/grpc-js';
import { Execution, type Execution as ExecutionMessage } from '#gen/millrace/executions/v1/execution.ts';
import type { ExecutionServiceService } from '#gen/millrace/executions/v1/execution_service.ts';
import type { ClientOf } from '#platform/client.ts';
import type { Db } from '#platform/db.ts';
import { type Code, Fault } from '#platform/errors.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { counter } from '#platform/metrics.ts';
import { repeat } from '#platform/pause.ts';
import * as system from './hook-system.ts';

export interface Deps {
  db: Db;
  executions: Pick<ClientOf<ExecutionServiceService>, 'createExecution' | 'watchExecution'>;
  log: Logger;
}
export type Started = { execution: ExecutionMessage } | { fault: Fault; isFinal: boolean };

const FINAL = new Set<Code>([
  'INVALID_ARGUMENT',
  'NOT_FOUND',
  'FAILED_PRECONDITION',
  'PERMISSION_DENIED',
  'ALREADY_EXISTS',
  'OUT_OF_RANGE',
]);
const DEADLINE_MS = 10_000;
const AT_ONCE = 20;
const IDLE_MS = 1000;
const FIRST_PAUSE_MS = 1000;
const MAX_PAUSE_MS = 300_000;
const GIVE_UP_SECONDS = 24 * 3600;
const KEY_SECONDS = 23 * 3600; // executions keep a key for 24 hours: after that a try could make a second one
const MAX_ERROR = 2000;
const started = counter('millrace_webhooks_starts_total', 'Tries to make the execution of a delivery', ['outcome']);

export const settled = (outcome: Started): outcome is { execution: ExecutionMessage } => 'execution' in outcome;

// One try. Its outcome is kept; when it cannot be, the worker tries again and finds the same execution.
export async function start({ db, executions, log }: Deps, due: system.Due): Promise<Started> {
  const outcome = await create(executions, due);
  failpoint('webhooks.created');
  if (settled(outcome)) {
    started.inc({ outcome: 'started' });
    await system
      .settle(db, due, { executionId: outcome.execution.id })
      .catch((error) => log.warn({ error, delivery: due.id }, 'a start is not noted yet'));
    return outcome;
  }
  const { fault, isFinal } = outcome;
  const error = `${fault.reason}: ${fault.message}`.slice(0, MAX_ERROR);
  const isOver = isFinal || due.ageSeconds > GIVE_UP_SECONDS;
  started.inc({ outcome: isOver ? 'failed' : 'retrying' });
  const retryMs = Math.max(fault.retryAfterMs ?? 0, backoffMs(due.attempts, Math.random()));
  await system
    .settle(db, due, isOver ? { error } : { error, retryMs })
    .catch((cause) => log.warn({ error: cause, delivery: due.id }, 'a failed start is not noted yet'));
  return { fault, isFinal: isOver };
}

// Doubles from 1 s to 5 min; of each pause half is by chance, so that what failed together is not tried together.
export const backoffMs = (attempts: number, chance: number): number =>
  Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(attempts, 20)) * (0.5 + chance / 2);

async function create(executions: Deps['executions'], due: system.Due): Promise<Started> {
  if (due.quietSeconds > KEY_SECONDS) {
    const message = 'whether the last try made an execution cannot be told any more: look for it before delivering again';
    return { fault: new Fault('FAILED_PRECONDITION', 'UNEXPECTED', message), isFinal: true };
  }
  try {
    const execution = Execution.fromPartial({
      automationId: due.automationId,
      revision: due.revision,
      input: JSON.parse(due.input),
      labels: { hook: due.hookId, delivery: due.id },
    });
    const actor = { user: due.creatorId, workspace: due.workspace, scopes: ['executions.run'] };
    const requestId = `hook ${due.hookId} ${due.id}`;
    return { execution: await executions.createExecution({ execution, requestId }, { actor, deadlineMs: DEADLINE_MS }) };
  } catch (error) {
    const fault =
      error instanceof Fault ? error : new Fault('INTERNAL', 'UNEXPECTED', 'the execution could not be asked for', { cause: error });
    return { fault, isFinal: FINAL.has(status[fault.code] as Code) };
  }
}

// Tries what is due until stopped.
export function retryStarts(deps: Deps): { wake(): void; stop(): Promise<void> } {
  let isStopped = false;
  const { wake, stop } = repeat(
    IDLE_MS,
    async () => {
      while (!isStopped) {
        const due = await system.claimDue(deps.db, AT_ONCE);
        await Promise.all(due.map((one) => start(deps, one)));
        if (due.length < AT_ONCE) return;
      }
    },
    deps.log,
  );
  return {
    wake,
    async stop() {
      isStopped = true;
      await stop();
    },
  };
}

// The execution once it has ended; undefined when that takes longer, or cannot be seen just now.
export async function ended(
  { executions, log }: Deps,
  actor: { user: string; workspace: string },
  id: string,
  waitMs: number,
  signal: AbortSignal,
): Promise<ExecutionMessage | undefined> {
  const late = AbortSignal.any([signal, AbortSignal.timeout(waitMs)]);
  try {
    for await (const { execution } of executions.watchExecution({ id }, { actor: { ...actor, scopes: ['executions.read'] }, signal: late }))
      if (execution?.endTime) return execution;
  } catch (error) {
    log.warn({ error, execution: id }, 'the end of an execution cannot be waited for');
  }
  return undefined;
}
