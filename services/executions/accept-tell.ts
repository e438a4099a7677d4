// What is told when executions have been accepted: to their callers, and to whoever starts them.
import { failpoint } from '#platform/failpoint.ts';
import { fromBytes } from '#platform/id.ts';
import type { Deps, Entry, Outcomes } from './accept.ts';
import type { Lent } from './accept-lent.ts';
import * as store from './accept-store.ts';
import type { Claimed } from './accept-unique.ts';
import type { Fresh } from './engine/fresh.ts';

// What follows the commit.
export function tell(
  { accepted }: Deps,
  entries: readonly Entry[],
  outcomes: Outcomes,
  lent?: Lent,
  crowded: ReadonlySet<string> = new Set(),
  replaced: Claimed['replaced'] = [],
): void {
  failpoint('accept.after_commit');
  for (const { asked, row } of entries) outcomes.set(asked, { id: fromBytes('execution', asked.id), row });
  lent?.tell();
  const now = lent ? [] : entries.filter(store.startsNow);
  const isPlain = now.every(({ limit, row }) => !limit && !row.blocked);
  accepted(
    new Set(now.map(({ asked }) => asked.lane)),
    entries.some((entry) => entry.plan.isLater),
    crowded,
    replaced,
    isPlain ? now.map(freshOf) : [],
  );
}

export const freshOf = ({ asked, row, tag }: Entry): Fresh => ({
  lane: asked.lane,
  priority: row.priority,
  tag,
  execution: asked.id,
  workspace: asked.workspace,
  automation: row.automation,
  revision: row.revision,
  creator: asked.creator,
  retry_of: row.retry_of,
  labels: row.labels,
  input: asked.draft.inputJson,
  traceparent: asked.traceparent,
  create_time: row.create_time,
});
