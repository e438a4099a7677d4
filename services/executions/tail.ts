// Tails of logs. One tailer for each execution that is watched in this process: whoever is at its end shares one read, whoever is a little behind
// finds the frames in its ring, whoever is further behind reads by himself. Nobody waits for another, and nothing is kept for a slow reader.
import { createHash } from 'node:crypto';
import type { Pool } from '#platform/db.ts';
import { notFound } from '#platform/errors.ts';
import { fromBytes } from '#platform/id.ts';
import { gauge } from '#platform/metrics.ts';
import * as notices from './engine/notices.ts';
import type { Hearing } from './hearing.ts';
import { advance, close, compare, type Frame, hashed, type Item, type Position, type Step } from './log.ts';
import * as store from './log-system.ts';
import { openPulse } from './pulse.ts';

interface Deps {
  pool: Pool;
  bus: Hearing;
  everyMs: number; // looks again without a notice
}
export interface Tails {
  // The frames from a place on: those that are there, and with isFollowing those that come, until the execution has ended.
  frames(execution: Buffer, from: Position, isFollowing: boolean, signal: AbortSignal): AsyncGenerator<Frame>;
  has(execution: Buffer, entry: Position): Promise<boolean>;
  watched(): number; // executions with a tailer
  heldBytes(): number; // in rings, about
}
interface Seen {
  items: readonly Item[];
  next: Position;
  isEnded: boolean;
  pulse: number; // of when the look began
}
interface Tailer {
  look(at: Position): Promise<Seen>;
  wait(pulse: number, signal: AbortSignal): Promise<void>;
  readers: number;
  heldBytes(): number;
  close(): void;
}

const RING_BYTES = 256 * 1024;
const readers = gauge('millrace_executions_log_readers', 'Readers of logs that are open');

export function openTails(deps: Deps): Tails {
  const tailers = new Map<string, Tailer>();

  function join(execution: Buffer): Tailer {
    const id = execution.toString('hex');
    const tailer = tailers.get(id) ?? openTailer(deps, execution);
    tailers.set(id, tailer);
    tailer.readers += 1;
    readers.inc();
    return tailer;
  }

  function leave(execution: Buffer, tailer: Tailer): void {
    tailer.readers -= 1;
    readers.dec();
    if (tailer.readers > 0) return;
    tailer.close();
    tailers.delete(execution.toString('hex'));
  }

  return {
    async *frames(execution, from, isFollowing, signal) {
      const tailer = join(execution);
      try {
        for (let at = from; !signal.aborted; ) {
          const { items, next, isEnded, pulse } = await tailer.look(at);
          for (const { frame } of items) yield frame;
          if (isEnded) return;
          const isStill = compare(at, next) === 0;
          at = next;
          if (isStill && !isFollowing) return;
          if (isStill) await tailer.wait(pulse, signal);
        }
      } finally {
        leave(execution, tailer);
      }
    },
    has: (execution, entry) => store.hasLine(deps.pool, execution, entry),
    watched: () => tailers.size,
    heldBytes: () => [...tailers.values()].reduce((sum, tailer) => sum + tailer.heldBytes(), 0),
  };
}

function openTailer({ pool, bus, everyMs }: Deps, execution: Buffer): Tailer {
  const id = fromBytes('execution', execution);
  const pulse = openPulse(bus, [notices.logs(id), notices.changed(id)]);
  const timer = setInterval(pulse.beat, everyMs);
  const ring = openRing();
  let reading: { at: Position; seen: Promise<Seen> } | undefined;

  async function read(at: Position): Promise<Seen> {
    const count = pulse.count();
    const { items, next, isEnded } = await stepOf(pool, execution, at);
    ring.add(at, { items, next, isEnded });
    return { items, next, isEnded, pulse: count };
  }

  return {
    readers: 0,
    async look(at) {
      const held = ring.from(at);
      if (held) return { ...held, pulse: pulse.count() };
      if (reading && compare(reading.at, at) === 0) return reading.seen;
      if (reading || !ring.isEnd(at)) return read(at);
      reading = { at, seen: read(at) };
      try {
        return await reading.seen;
      } finally {
        reading = undefined;
      }
    },
    wait: pulse.wait,
    heldBytes: ring.bytes,
    close() {
      clearInterval(timer);
      pulse.close();
    },
  };
}

type Held = Omit<Seen, 'pulse'>;

// The newest frames. A read that continues them, or that is ahead of them, is added; one that is behind is not.
function openRing() {
  let items: Item[] = [];
  let bytes = 0;
  let start: Position | undefined; // before the first item
  let end: Position | undefined;
  let isEnded = false;
  return {
    bytes: (): number => bytes,
    isEnd: (at: Position): boolean => end === undefined || compare(at, end) === 0,
    add(at: Position, step: Held): void {
      if (end && compare(at, end) < 0) return;
      if (!end || compare(at, end) > 0) {
        items = [];
        bytes = 0;
        start = at;
      }
      end = step.next;
      isEnded = step.isEnded;
      items.push(...step.items);
      for (const item of step.items) bytes += item.bytes;
      let gone = 0;
      while (bytes > RING_BYTES && gone < items.length) {
        const item = items[gone++] as Item;
        bytes -= item.bytes;
        start = item.next;
      }
      items.splice(0, gone);
    },
    from(at: Position): Held | undefined {
      if (!start || !end || compare(at, start) < 0 || compare(at, end) > 0) return undefined;
      if (compare(at, end) === 0) return isEnded ? { items: [], next: end, isEnded } : undefined;
      const index = items.findIndex(({ next }) => compare(next, at) > 0);
      return { items: items.slice(index), next: end, isEnded };
    },
  };
}

// One step on from a place, read from the database.
async function stepOf(pool: Pool, execution: Buffer, at: Position): Promise<Step> {
  const page = await store.page(pool, execution, at);
  if (!page) throw notFound('execution', fromBytes('execution', execution));
  const step = advance(at, page);
  if (!step.open) return step;
  const attempt = { ...step.open, ...(await seal(pool, execution, step.open.number)) };
  return close(step, attempt);
}

// Counts and hashes the log of an attempt that ended without its server's word, once.
async function seal(pool: Pool, execution: Buffer, attempt: number): Promise<{ log_count: number; log_sha256: string }> {
  const hash = createHash('sha256');
  let count = 0;
  for (;;) {
    const page = await store.page(pool, execution, { attempt, seq: count });
    if (!page || page.lines.length === 0) break;
    for (const line of page.lines) hash.update(hashed(line));
    count += page.lines.length;
  }
  const sealed = { log_count: count, log_sha256: hash.digest('hex') };
  await store.writeSeal(pool, execution, attempt, sealed);
  return sealed;
}
