// The frames of a log, in order: each attempt's entries, then its end. Pure, but for the hash of a log that nobody closed.
import type { AttemptEnd, LogEntry } from '#gen/millrace/executions/v1/log.ts';
import type { Line } from '#gen/millrace/runner/v1/job.ts';
import { Fault } from '#platform/errors.ts';
import { formatCursor } from './engine/log-codec.ts';
import { isFinal, type State } from './engine/machine.ts';

// The next entry that is wanted.
export interface Position {
  attempt: number;
  seq: number;
}
export interface AttemptLog {
  number: number;
  ended: number;
  log_count: number | null;
  log_sha256: string | null;
  dropped_bytes: number | null;
}
export interface Page {
  state: State; // of the execution, as its row says
  attempts: AttemptLog[]; // from the wanted one on
  lines: Line[]; // of the wanted attempt, from the wanted one on
}
export type Frame = { entry: LogEntry } | { attemptEnd: AttemptEnd };
export interface Item {
  frame: Frame;
  next: Position; // after the frame
  bytes: number; // in memory, about
}
export interface Step {
  items: Item[];
  next: Position;
  isEnded: boolean; // nothing will follow
  open: AttemptLog | undefined; // ended with all its lines told, but nobody has counted them
}

const OWN_BYTES = 100;

export const START: Position = { attempt: 1, seq: 0 };

export const compare = (a: Position, b: Position): number => a.attempt - b.attempt || a.seq - b.seq;

// What a page brings to somebody who has seen everything before `from`.
export function advance(from: Position, page: Page): Step {
  const items = itemsOf(from, page.lines);
  const next = { attempt: from.attempt, seq: from.seq + items.length };
  const step: Step = { items, next, isEnded: false, open: undefined };
  const attempt = page.attempts.find(({ number }) => number === from.attempt);
  const later = page.attempts.find(({ number }) => number > from.attempt);
  const isOver = isFinal(page.state);
  if (!attempt && items.length > 0) return step;
  if (!attempt) return later ? { ...step, next: { attempt: later.number, seq: 0 } } : { ...step, isEnded: isOver };
  if (!attempt.ended && !isOver && !later) return step;
  if (attempt.log_count === null || attempt.log_sha256 === null) return items.length === 0 ? { ...step, open: attempt } : step;
  if (next.seq >= attempt.log_count) return close({ ...step, isEnded: isOver && !later }, attempt);
  if (items.length === 0) throw lost(next, `${attempt.log_count} entries were kept`);
  return step;
}

// The entries up to a gap; at a gap, a fault.
function itemsOf(from: Position, lines: readonly Line[]): Item[] {
  const gap = lines.findIndex(({ seq }, index) => seq !== from.seq + index);
  if (gap === 0) throw lost(from, `entry ${lines[0]?.seq} comes next`);
  return (gap < 0 ? lines : lines.slice(0, gap)).map((line) => entryOf(from.attempt, line));
}

// The same with the attempt's end.
export function close(step: Step, { number, log_count, log_sha256, dropped_bytes }: AttemptLog): Step {
  const next = { attempt: number + 1, seq: 0 };
  const attemptEnd = { attempt: number, count: log_count ?? 0, sha256: log_sha256 ?? '', droppedBytes: dropped_bytes ?? 0 };
  return { ...step, items: [...step.items, { frame: { attemptEnd }, next, bytes: OWN_BYTES }], next, open: undefined };
}

function entryOf(attempt: number, { seq, time, stream, level, text, partial }: Line): Item {
  const entry = { cursor: formatCursor(attempt, seq), attempt, seq, time, stream, level, text, partial };
  return { frame: { entry }, next: { attempt, seq: seq + 1 }, bytes: OWN_BYTES + text.length };
}

const lost = ({ attempt, seq }: Position, why: string): Fault =>
  new Fault('DATA_LOSS', 'UNEXPECTED', `entry ${seq} of attempt ${attempt} is missing: ${why}`);

// What the hash of a log is made of.
export const hashed = ({ text, partial }: Pick<Line, 'text' | 'partial'>): string => (partial ? text : `${text}\n`);
