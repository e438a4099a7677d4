// Whether an execution may be accepted, and as what. Pure.
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { type Fault, notFound, reasonsOf } from '#platform/errors.ts';
import type { Concurrency } from './concurrency.ts';
import { EVERYONE } from './engine/gates.ts';
import { type Blocked, type Draft, startOf } from './execution.ts';
import type { PayloadRetention, Revision } from './revisions.ts';
import { type Labels, labelsOf, merge } from './selector.ts';

const faults = reasonsOf<keyof typeof ErrorReason>('executions');

// An automation as the projection keeps it.
export interface Automation {
  id: Buffer;
  workspace: Buffer;
  published_revision: number;
  disabled: number;
  deleted: number;
  concurrency: Concurrency | null;
  queue: string | null; // null: the default one
  selector: unknown; // labels
}
// A queue that is paused or draining or has a selector, or a workspace whose executions are halted.
export interface Shut {
  workspace: Buffer;
  queue: string | null; // null: the whole workspace, or everything
  how: 'ACTIVE' | 'PAUSED' | 'DRAINING' | 'MAINTENANCE' | 'STOPPED';
  reason: string;
  selector: unknown; // labels, of a queue
}
export interface Plan {
  revision: number;
  startTime: Date; // not before it
  isLater: boolean;
  expireTime: Date; // when waiting ends
  retention: PayloadRetention | null;
}

// The revision that would run. Throws when there is none or it may not run.
export function revisionFor(draft: Draft, workspace: Buffer, automation: Automation | undefined): number {
  if (!automation || automation.deleted || !automation.workspace.equals(workspace)) throw notFound('automation', draft.automationId);
  const metadata = { automation: draft.automationId };
  if (automation.disabled) throw faults.failedPrecondition('AUTOMATION_DISABLED', `automation ${draft.automationId} is disabled`, metadata);
  const number = draft.revision || automation.published_revision;
  if (number > 0) return number;
  const message = `automation ${draft.automationId} has no published revision: publish one, or name a revision`;
  throw faults.failedPrecondition('AUTOMATION_UNPUBLISHED', message, metadata);
}

// Throws when the queue, the workspace or the installation takes nothing new; answers why nothing is started for now, if so.
export function mustBeOpen(shut: readonly Shut[], workspace: Buffer, queue: string): Blocked | null {
  let blocked: Blocked | null = null;
  for (const { workspace: whose, queue: named, how, reason } of shut) {
    if (!whose.equals(workspace) && !(named === null && whose.equals(EVERYONE))) continue;
    if (named !== null && named !== queue) continue;
    if (how === 'STOPPED')
      throw faults.failedPrecondition('EXECUTIONS_STOPPED', `executions are stopped${reason ? `: ${reason}` : ''}`, { reason });
    if (how === 'DRAINING')
      throw faults.failedPrecondition('QUEUE_DRAINING', `the queue ${queue} is draining and takes nothing new`, { queue });
    if (how === 'MAINTENANCE') blocked = 'MAINTENANCE';
    else if (how === 'PAUSED') blocked ??= 'QUEUE_PAUSED';
  }
  return blocked;
}

// The labels that a server must have: those that the automation and its queue ask for.
export function selectorFor(
  automation: Pick<Automation, 'selector'> | undefined,
  shut: readonly Shut[],
  workspace: Buffer,
  queue: string,
): Labels {
  const own = labelsOf(automation?.selector) ?? {};
  const of = shut.find((one) => one.queue === queue && one.workspace.equals(workspace) && labelsOf(one.selector));
  if (!of) return own;
  const { selector, conflict } = merge(labelsOf(of.selector) ?? {}, own);
  if (conflict === undefined) return selector;
  const message = `the automation and the queue ${queue} ask for different values of the label ${conflict}`;
  throw faults.failedPrecondition('SELECTOR_CONFLICT', message, { label: conflict, queue });
}

export function planFor(draft: Draft, number: number, revision: Revision | undefined, now: Date): Plan {
  if (!revision) throw notFound('revision', `${number} of automation ${draft.automationId}`);
  const fault: Fault | undefined = revision.check(draft.input ?? {}, draft.inputBytes);
  if (fault) throw fault;
  const startTime = startOf(draft.scheduleTime, now);
  const expireTime = new Date(startTime.getTime() + revision.waitMs);
  return { revision: number, startTime, isLater: startTime > now, expireTime, retention: revision.retention };
}
