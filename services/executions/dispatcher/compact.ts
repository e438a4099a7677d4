// Compaction: the many small chunks of a log become few compressed ones. Readers see the same lines before and after.
import { LRUCache } from 'lru-cache';
import type { Pool, PoolConnection } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import { compress, decodeLines, encodeLines, PLAIN, ZSTD } from '../engine/log-codec.ts';
import { format, insert, rows } from '../engine/sql.ts';
import * as metrics from './metrics.ts';
import { transaction } from './transaction.ts';

export interface Compactor {
  wrote(execution: Buffer, attempt: number, bytes: number): void; // a chunk was written
  adopted(execution: Buffer, attempt: number): void; // somebody else wrote chunks
  ended(execution: Buffer, attempt: number): void;
  stop(): Promise<void>;
}
interface Chunk {
  first_seq: number;
  count: number;
  bytes: number;
  body: Buffer;
}

const LIVE_BYTES = 1024 * 1024; // a log that grows is compacted each time so much has come
const SEGMENT_BYTES = 256 * 1024;
const SMALL_BYTES = 16 * 1024; // a log of few chunks below it stays as it is
const FEW_CHUNKS = 8;
const MAX_QUEUE = 10_000;
const MAX_KNOWN = 50_000; // attempts that another dispatcher ends are never told here

export function openCompactor({ pool, log }: { pool: Pool; log: Logger }): Compactor {
  const grown = new LRUCache<string, { bytes: number; chunks: number }>({ max: MAX_KNOWN }); // since the last compaction
  const queue = new Map<string, { execution: Buffer; attempt: number }>();
  let running: Promise<void> | undefined;
  let isStopped = false;

  function want(execution: Buffer, attempt: number, key: string): void {
    grown.delete(key);
    if (queue.size >= MAX_QUEUE || isStopped) return; // it stays as it is
    queue.set(key, { execution, attempt });
    running ??= drain().finally(() => {
      running = undefined;
    });
  }

  async function drain(): Promise<void> {
    for (const [key, { execution, attempt }] of queue) {
      queue.delete(key);
      if (isStopped) return;
      await compact(pool, execution, attempt).catch((error) => log.warn({ error }, 'a log could not be compacted; it stays as it is'));
    }
  }

  return {
    wrote(execution, attempt, bytes) {
      const key = `${execution.toString('hex')}.${attempt}`;
      const before = grown.get(key) ?? { bytes: 0, chunks: 0 };
      grown.set(key, { bytes: before.bytes + bytes, chunks: before.chunks + 1 });
      if (before.bytes + bytes >= LIVE_BYTES) want(execution, attempt, key);
    },
    adopted(execution, attempt) {
      grown.set(`${execution.toString('hex')}.${attempt}`, { bytes: SMALL_BYTES + 1, chunks: 1 });
    },
    ended(execution, attempt) {
      const key = `${execution.toString('hex')}.${attempt}`;
      const { bytes = 0, chunks = 0 } = grown.get(key) ?? {};
      if (chunks > FEW_CHUNKS || bytes > SMALL_BYTES) want(execution, attempt, key);
      else grown.delete(key);
    },
    async stop() {
      isStopped = true;
      await running;
    },
  };
}

// Merges the chunks of an attempt that are still plain.
export async function compact(pool: Pool, execution: Buffer, attempt: number): Promise<void> {
  await transaction(pool, async (connection) => {
    const chunks = await plain(connection, execution, attempt);
    if (chunks.length === 0) return;
    const values = segments(chunks).map(({ first, count, body }) => [execution, attempt, first, count, body.length, ZSTD, compress(body)]);
    await rows(connection, [
      ...chunks.map(({ first_seq }) =>
        format('DELETE FROM log_chunks WHERE execution = ? AND attempt = ? AND first_seq = ?', [execution, attempt, first_seq]),
      ),
      ...insert('log_chunks', 'execution, attempt, first_seq, count, bytes, codec, body', values),
    ]);
    metrics.compactions.inc();
  });
}

async function plain(connection: PoolConnection, execution: Buffer, attempt: number): Promise<Chunk[]> {
  const sql =
    'SELECT first_seq, count, bytes, body FROM log_chunks WHERE execution = ? AND attempt = ? AND codec = ? ORDER BY first_seq FOR UPDATE';
  const [found = []] = await rows<[Chunk[]]>(connection, [format(sql, [execution, attempt, PLAIN])]);
  return found;
}

interface Segment {
  first: number;
  count: number;
  body: Buffer;
}

// Bodies behind one another are a body; one that is larger than a segment is cut between its lines.
export function segments(chunks: readonly Chunk[]): Segment[] {
  const made: Segment[] = [];
  let open: { first: number; count: number; bodies: Buffer[]; bytes: number } | undefined;
  const close = () => {
    if (open) made.push({ first: open.first, count: open.count, body: Buffer.concat(open.bodies) });
    open = undefined;
  };
  const add = (first: number, count: number, body: Buffer) => {
    if (open && (open.bytes + body.length > SEGMENT_BYTES || open.first + open.count !== first)) close();
    open ??= { first, count: 0, bodies: [], bytes: 0 };
    open.count += count;
    open.bodies.push(body);
    open.bytes += body.length;
  };
  for (const { first_seq, count, body } of chunks) {
    if (body.length <= SEGMENT_BYTES) add(first_seq, count, body);
    else for (const [index, line] of decodeLines(PLAIN, body).entries()) add(first_seq + index, 1, encodeLines([line]));
  }
  close();
  return made;
}
