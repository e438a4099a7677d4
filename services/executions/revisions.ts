// Revisions are immutable: once read, they are kept as long as there is room.
import { LRUCache } from 'lru-cache';
import type { Duration } from '#gen/google/protobuf/duration.ts';
import { AutomationSpec, type Retention } from '#gen/millrace/automations/v1/spec.ts';
import type { Pool, RowDataPacket } from '#platform/db.ts';
import { type CheckInput, checkerOf } from './input.ts';

// What accepting must know of a revision.
export interface Revision {
  check: CheckInput;
  waitMs: number; // how long an execution may wait for its start
  retention: PayloadRetention | null; // null: input and output are kept as long as the execution
}
export interface PayloadRetention {
  keepMs: number | null; // after the end; null: as long as the execution
  onRead: boolean; // erased once the result was read
}
export interface Revisions {
  load(wanted: readonly RevisionKey[]): Promise<void>; // reads those that are not there yet
  get(wanted: RevisionKey): Revision | undefined;
}
export interface RevisionKey {
  automation: Buffer;
  number: number;
}

const MAX_BYTES = 64 * 1024 * 1024;
const OWN_BYTES = 500;
const SCHEDULE_TO_CLOSE_MS = 24 * 3_600_000;

export function openRevisions(pool: Pool): Revisions {
  const known = new LRUCache<string, Revision & { bytes: number }>({ maxSize: MAX_BYTES, sizeCalculation: (revision) => revision.bytes });
  return {
    async load(wanted) {
      const missing = new Map(wanted.filter((one) => !known.has(keyOf(one))).map((one) => [keyOf(one), [one.automation, one.number]]));
      if (missing.size === 0) return;
      const sql = 'SELECT automation, number, spec FROM revisions WHERE (automation, number) IN (?)';
      const [rows] = await pool.query<(RowDataPacket & { automation: Buffer; number: number; spec: Buffer })[]>(sql, [
        [...missing.values()],
      ]);
      for (const row of rows) known.set(keyOf(row), revisionOf(row.spec));
    },
    get: (wanted) => known.get(keyOf(wanted)),
  };
}

const keyOf = ({ automation, number }: RevisionKey): string => `${automation.toString('hex')}.${number}`;

function revisionOf(bytes: Buffer): Revision & { bytes: number } {
  const { inputSchema, timeouts, retention } = AutomationSpec.decode(bytes);
  const toClose = timeouts?.scheduleToClose ? msOf(timeouts.scheduleToClose) : SCHEDULE_TO_CLOSE_MS;
  const toStart = timeouts?.scheduleToStart ? msOf(timeouts.scheduleToStart) : toClose;
  return {
    check: checkerOf(inputSchema),
    waitMs: Math.min(toStart, toClose),
    retention: retentionOf(retention),
    bytes: OWN_BYTES + JSON.stringify(inputSchema ?? {}).length * 4,
  };
}

const retentionOf = (asked: Retention | undefined): PayloadRetention | null =>
  asked && (asked.payloads || asked.deleteAfterUse)
    ? { keepMs: asked.payloads ? msOf(asked.payloads) : null, onRead: asked.deleteAfterUse }
    : null;

const msOf = ({ seconds, nanos }: Duration): number => seconds * 1000 + nanos / 1e6;
