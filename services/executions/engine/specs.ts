// What revisions say about running, with every default filled in. Revisions are immutable: once read, they are kept as long as there is room.
import { LRUCache } from 'lru-cache';
import type { Duration } from '#gen/google/protobuf/duration.ts';
import { AutomationSpec, AutomationSpec_OnLost } from '#gen/millrace/automations/v1/spec.ts';
import type { Pool, RowDataPacket } from '#platform/db.ts';
import type { Policy } from './machine.ts';
import { hex } from './sql.ts';

export interface Spec {
  spec: AutomationSpec;
  policy: Policy;
  startToCloseMs: number;
  scheduleToCloseMs: number;
  isLimitedToStart: boolean; // its waiting may end before schedule-to-close
}
export interface Revision {
  automation: Buffer;
  revision: number;
}
// Answers the spec of each revision that there is.
export type LoadSpecs = (wanted: readonly Revision[]) => Promise<(one: Revision) => Spec | undefined>;

const MAX_BYTES = 64 * 1024 * 1024;
const OWN_BYTES = 2000;
const SECOND = 1000;
const DAY_MS = 24 * 3600 * SECOND;

export function openSpecs(pool: Pool): LoadSpecs {
  const known = new LRUCache<string, Spec & { bytes: number }>({ maxSize: MAX_BYTES, sizeCalculation: ({ bytes }) => bytes });
  return async (wanted) => {
    const found = new Map<string, Spec>();
    const missing = new Map<string, [Buffer, number]>();
    for (const one of wanted) {
      const spec = known.get(keyOf(one));
      if (spec) found.set(keyOf(one), spec);
      else missing.set(keyOf(one), [one.automation, one.revision]);
    }
    if (missing.size > 0) {
      const sql = 'SELECT automation, number AS revision, spec FROM revisions WHERE (automation, number) IN (?)';
      const [rows] = await pool.query<(Revision & { spec: Buffer } & RowDataPacket)[]>(sql, [[...missing.values()]]);
      for (const row of rows) {
        const spec = specOf(AutomationSpec.decode(row.spec));
        known.set(keyOf(row), { ...spec, bytes: OWN_BYTES + row.spec.length * 2 });
        found.set(keyOf(row), spec);
      }
    }
    return (one) => found.get(keyOf(one));
  };
}

// Whether it is started with secrets or variables.
export const namesValues = ({ secrets, variables }: AutomationSpec): boolean => secrets.length + variables.length > 0;

const keyOf = ({ automation, revision }: Revision): string => `${hex(automation)}.${revision}`;

export function specOf(spec: AutomationSpec): Spec {
  const { timeouts, retryPolicy, onLost } = spec;
  return {
    spec,
    startToCloseMs: msOf(timeouts?.startToClose, 300 * SECOND),
    scheduleToCloseMs: msOf(timeouts?.scheduleToClose, DAY_MS),
    isLimitedToStart: timeouts?.scheduleToStart !== undefined,
    policy: {
      maxAttempts: retryPolicy?.maxAttempts || 3,
      initialMs: msOf(retryPolicy?.initialInterval, SECOND),
      coefficient: retryPolicy?.coefficient || 2,
      maxMs: msOf(retryPolicy?.maxInterval, 60 * SECOND),
      nonRetryable: new Set(retryPolicy?.nonRetryableTypes ?? []),
      onLost: onLost === AutomationSpec_OnLost.FAIL ? 'FAIL' : 'RETRY',
    },
  };
}

const msOf = (duration: Duration | undefined, otherwise: number): number =>
  duration ? duration.seconds * SECOND + duration.nanos / 1e6 : otherwise;

export const durationOf = (ms: number): Duration => ({ seconds: Math.floor(ms / SECOND), nanos: Math.round((ms % SECOND) * 1e6) });
