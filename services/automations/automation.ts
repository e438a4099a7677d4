// automation.ts: what an automation is and how it may change. Nothing here reads a clock, makes an id or knows where automations are kept.
import { isDeepStrictEqual } from 'node:util';
import type { Automation } from '#gen/millrace/automations/v1/automation.ts';
import type { ErrorReason } from '#gen/millrace/automations/v1/error_reason.ts';
import { type Fault, fault, notFound, reasonsOf } from '#platform/errors.ts';

export const faults = reasonsOf<keyof typeof ErrorReason>('automations');

// What an update may name, as in a field mask.
export const UPDATABLE = ['name', 'description', 'disabled', 'labels'] as const;
export type Updatable = (typeof UPDATABLE)[number];

export function accept(draft: Automation, creatorId: string, id: string, now: Date): Automation {
  return {
    ...named(draft),
    disabled: draft.disabled ?? false,
    id,
    latestRevision: 0,
    publishedRevision: 0,
    inputSchema: undefined,
    outputSchema: undefined,
    creatorId,
    createTime: now,
    updateTime: now,
    version: 1,
  };
}

export function update(automation: Automation, draft: Automation, fields: readonly Updatable[], now: Date): Automation {
  const has = (field: Updatable) => fields.includes(field);
  const next = named({
    ...automation,
    ...(has('name') && { name: draft.name }),
    ...(has('description') && { description: draft.description }),
    ...(has('disabled') && { disabled: draft.disabled ?? false }),
    ...(has('labels') && { labels: draft.labels }),
  });
  return changed(automation, next, now);
}

// The next revision was written.
export const revised = (automation: Automation, now: Date): Automation =>
  changed(automation, { latestRevision: automation.latestRevision + 1 }, now);

// The revision that a caller means who names none, or this one. Revisions are numbered from 1 without gaps.
export function revisionToPublish({ id, latestRevision }: Automation, asked: number): number {
  if (latestRevision === 0) throw faults.failedPrecondition('NO_REVISION', `automation ${id} has no revision: write one first`, { id });
  if (asked > latestRevision) throw notFound('revision', String(asked));
  return asked || latestRevision;
}

export const published = (automation: Automation, revision: number, now: Date): Automation =>
  changed(automation, { publishedRevision: revision }, now);

// The publications of an automation are counted from 1. Each knows the one that it can be rolled back to, so that going back twice leads
// two publications back, and not forth again.
export interface Publication {
  sequence: number;
  revision: number;
  parent: number; // the sequence number of that one; 0 when there is none
}

export const publication = (present: Publication | undefined, revision: number): Publication => ({
  sequence: (present?.sequence ?? 0) + 1,
  revision,
  parent: present?.sequence ?? 0,
});

// Going back is a publication of its own: it publishes what its parent did, and can be rolled back to where that one could.
export function rollback(id: string, present: Publication | undefined, parent: Publication | undefined): Publication {
  if (!present || !parent) {
    throw faults.failedPrecondition('NO_REVISION', `automation ${id} has no earlier publication to go back to`, { id });
  }
  return { sequence: present.sequence + 1, revision: parent.revision, parent: parent.parent };
}

// An automation as lists and events show it: without what may be large.
export const summaryOf = (automation: Automation): Automation => ({ ...automation, inputSchema: undefined, outputSchema: undefined });

// A change that changes nothing answers the same automation: no new version, no event.
function changed(automation: Automation, patch: Partial<Automation>, now: Date): Automation {
  const next = { ...automation, ...patch };
  return isDeepStrictEqual(next, automation) ? automation : { ...next, updateTime: now, version: automation.version + 1 };
}

// The gateway drops JSON fields that it does not know, so whoever misspelled the name is told the fields that it does.
function named(automation: Automation): Automation {
  if (automation.name.trim() === '') throw blank('automation.name', UPDATABLE);
  return automation;
}

const blank = (field: string, known: readonly string[]): Fault =>
  fault('INVALID_ARGUMENT', 'FIELD_INVALID', `${field} must not be blank; the known fields are ${known.join(', ')}`, {
    violations: [{ field, description: 'must not be blank' }],
    metadata: { fields: known.join(',') },
  });
