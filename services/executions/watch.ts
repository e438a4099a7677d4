// A watch of many executions: looks at those that are open and those that came since the last look, and tells what changed. Nothing is kept for
// it: a cursor is the oldest execution that was open at a look, and the look's time, so that a later watch finds what ended meanwhile.
import type { WatchExecutionsResponse } from '#gen/millrace/executions/v1/control_service.ts';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import type { Pool } from '#platform/db.ts';
import { reasonsOf } from '#platform/errors.ts';
import { pause } from '#platform/pause.ts';
import { isFinal } from './engine/machine.ts';
import { OPEN, type Row, stateOf } from './execution.ts';
import type { Wanted } from './filter.ts';
import * as store from './store.ts';
import { clock, since } from './watch-store.ts';

export interface Position {
  oldest: Buffer; // everything older had ended
  time: Date; // by the database
}
interface Deps {
  pool: Pool;
  message(row: Row): Promise<Execution>;
  everyMs: number;
}
export interface Watching {
  frames(signal: AbortSignal): AsyncGenerator<WatchExecutionsResponse>;
  cursor(): string; // to resume from now
}
export type Watch = (workspace: Buffer, wanted: Wanted, from: Position | undefined) => Promise<Watching>;

const MOST = 2000;
const PAGE = 200;
const OVERLAP_MS = 10_000; // ids are made by the clocks of processes, and become visible later
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export const openWatch =
  ({ pool, message, everyMs }: Deps): Watch =>
  async (workspace, wanted, from) => {
    const begin = from?.time ?? (await clock(pool));
    const first = from ? await since(pool, workspace, from.oldest, before(begin), wanted) : await openOnes(pool, workspace, wanted);
    if (!from && first.length > MOST) throw tooWide();
    let position = { oldest: oldestOf(first.map(hex), begin), time: begin };
    const states = new Set(wanted.states);
    const open = new Map<string, string>(); // what was told of each
    const ended = new Map<string, number>(); // what was told of late, until looks do not find it any more

    async function* look(ids: readonly Buffer[]): AsyncGenerator<WatchExecutionsResponse> {
      const news = ids.filter((id) => !ended.has(hex(id)));
      const all = [...new Set([...open.keys(), ...news.map(hex)])].sort();
      for (let at = 0; at < all.length; at += PAGE) {
        const some = all.slice(at, at + PAGE).map((id) => Buffer.from(id, 'hex'));
        for (const row of (await store.rowsOf(pool, workspace, some)).reverse()) {
          const told = open.get(hex(row.id));
          const now = digest(row);
          if (isFinal(row.state)) {
            open.delete(hex(row.id));
            ended.set(hex(row.id), row.end_time?.getTime() ?? 0);
          } else open.set(hex(row.id), now);
          const isWanted = states.size === 0 || states.has(stateOf(row));
          if (told !== now && isWanted) yield { execution: await message(row), cursor: encodeCursor(position) };
        }
      }
      if (open.size > MOST) throw tooWide();
    }

    async function* frames(signal: AbortSignal): AsyncGenerator<WatchExecutionsResponse> {
      for (let ids = first; !signal.aborted; ) {
        const time = await clock(pool);
        yield* look(ids);
        position = { oldest: oldestOf([...open.keys()], time), time };
        for (const [id, endTime] of ended) if (endTime < time.getTime() - 2 * OVERLAP_MS) ended.delete(id);
        await pause(everyMs, signal);
        if (!signal.aborted) ids = await since(pool, workspace, store.lowestId(before(time).getTime()), before(time), wanted);
      }
    }
    return { frames, cursor: () => encodeCursor(position) };
  };

const tooWide = () => faults.exhausted('WATCH_TOO_WIDE', `more than ${MOST} open executions would be followed: narrow the filter`, 1000);

// The oldest of some, or of what may still become visible.
function oldestOf(ids: readonly string[], time: Date): Buffer {
  const recent = hex(store.lowestId(before(time).getTime()));
  return Buffer.from([...ids, recent].sort()[0] as string, 'hex');
}

async function openOnes(pool: Pool, workspace: Buffer, wanted: Wanted): Promise<Buffer[]> {
  const lanes = await store.lanes(pool, workspace);
  return (await store.list(pool, workspace, lanes, { ...wanted, states: OPEN, before: undefined, limit: MOST + 1 })).map(({ id }) => id);
}

const before = (time: Date): Date => new Date(time.getTime() - OVERLAP_MS);
const hex = (id: Buffer): string => id.toString('hex');
const digest = (row: Row): string =>
  [stateOf(row), row.version, row.attempt_count, row.progress_fraction, row.progress_message].join('\u0000');

const encodeCursor = ({ oldest, time }: Position): string =>
  Buffer.from(`${hex(oldest)}.${time.getTime().toString(36)}`).toString('base64url');

export function decodeCursor(cursor: string): Position | undefined {
  if (cursor === '') return undefined;
  const [, oldest, time] = /^([0-9a-f]{32})\.([0-9a-z]{1,10})$/.exec(Buffer.from(cursor, 'base64url').toString()) ?? [];
  if (oldest && time) return { oldest: Buffer.from(oldest, 'hex'), time: new Date(Number.parseInt(time, 36)) };
  const violations = [{ field: 'cursor', description: 'must be the cursor of a frame of this method' }];
  throw faults.invalid('CURSOR_INVALID', 'the cursor was not made by this method: send the last one seen, or none', violations);
}
