// Keeps a week of history as a file before it is dropped: a JSON object a line, compressed by zstd.
import { once } from 'node:events';
import { createZstdCompress } from 'node:zlib';
import { Attempt, Execution } from '#gen/millrace/executions/v1/execution.ts';
import { LogEntry } from '#gen/millrace/executions/v1/log.ts';
import type { Blobs, Stage } from '#platform/blob.ts';
import type { PoolConnection, RowDataPacket } from '#platform/db.ts';
import { fromBytes } from '#platform/id.ts';
import { decodeLines } from './engine/log-codec.ts';
import { type AttemptRow, attemptOf, messageOf, type Row } from './execution.ts';
import { advance } from './log.ts';

export interface Archived {
  key: string; // of the file in the store
  executions: number;
  bytes: number;
}
type Found<T> = RowDataPacket & T;
type Chunk = { attempt: number; first_seq: number; codec: number; body: Buffer };

const PAGE = 200;

export const keyOf = (week: string): string => `history_${week}`;

// Nothing in the week may change any more. Undefined when it is kept already: a file is whole or not there. The signal gives it up.
export async function archiveWeek(
  blobs: Blobs,
  signal: AbortSignal,
  connection: PoolConnection,
  week: string,
): Promise<Archived | undefined> {
  const key = keyOf(week);
  if ((await blobs.size(key)) !== undefined) return undefined;
  await blobs.delete(key); // what was staged by somebody who did not come to the end
  const stage = await blobs.stage(key);
  const file = openFile(stage);
  try {
    let executions = 0;
    for (let after: Buffer = Buffer.alloc(16); ; ) {
      const rows = await pageOf(connection, week, after);
      for (const row of rows) {
        signal.throwIfAborted();
        await writeExecution(connection, file.write, row);
      }
      executions += rows.length;
      const last = rows.at(-1);
      if (!last) break;
      after = last.id;
    }
    await file.write({ type: 'end', executions });
    const bytes = await file.end();
    await stage.keep();
    return { key, executions, bytes };
  } finally {
    file.giveUp();
    await stage.close();
  }
}

type Write = (line: object) => Promise<void>;

// One frame, for readers that know no more. What is written waits for what is kept.
function openFile(stage: Stage): { write: Write; end(): Promise<number>; giveUp(): void } {
  const frame = createZstdCompress();
  const keep = async (): Promise<number> => {
    let bytes = 0;
    for await (const part of frame as AsyncIterable<Buffer>) {
      await stage.write(part, bytes);
      bytes += part.length;
    }
    return bytes;
  };
  const kept = keep();
  kept.catch(() => undefined); // told by whoever waits for it
  return {
    async write(line) {
      if (!frame.write(`${JSON.stringify(line)}\n`)) await Promise.race([once(frame, 'drain'), kept]);
    },
    end() {
      frame.end();
      return kept;
    },
    giveUp: () => void frame.destroy(),
  };
}

const COLUMNS = `id, workspace, automation, revision, state, version, creator, retry_of, labels, priority, limit_key, error, attempt_count,
  schedule_time, create_time, start_time, end_time, progress_fraction, progress_message, payload_deleted_time, input, output,
  NULL AS running_state, NULL AS timer, NULL AS due_time`;

async function pageOf(connection: PoolConnection, week: string, after: Buffer): Promise<Row[]> {
  const sql = `SELECT ${COLUMNS} FROM executions PARTITION (${week}) WHERE id > ? ORDER BY id LIMIT ${PAGE}`;
  const [rows] = await connection.query<Found<Row>[]>(sql, [after]);
  return rows;
}

async function writeExecution(connection: PoolConnection, write: Write, row: Row): Promise<void> {
  const bodies = await all<{ kind: string; body: string }>(connection, 'SELECT kind, body FROM results WHERE execution = ?', row);
  const bodyOf = (kind: string) => bodies.find((one) => one.kind === kind)?.body ?? null;
  const whole = { ...row, input: row.input ?? bodyOf('INPUT'), output: row.output ?? bodyOf('OUTPUT') };
  const executionId = fromBytes('execution', row.id);
  const execution = Execution.toJSON(messageOf(whole, ''));
  await write({ type: 'execution', workspaceId: fromBytes('workspace', row.workspace), execution });
  for (const attempt of await all<AttemptRow>(connection, ATTEMPTS, row))
    await write({ type: 'attempt', executionId, attempt: Attempt.toJSON(attemptOf(attempt)) });
  for (const chunk of await all<Chunk>(connection, CHUNKS, row))
    for (const entry of entriesOf(chunk, row)) await write({ type: 'log', executionId, entry: LogEntry.toJSON(entry) });
}

const ATTEMPTS = `SELECT number, state, server, sandbox_tier, isolation, limits, start_time, end_time, error, cpu_seconds, peak_memory_kib, log_bytes,
  log_count, 0 AS line_count FROM attempts WHERE execution = ? ORDER BY number`;
const CHUNKS = 'SELECT attempt, first_seq, codec, body FROM log_chunks WHERE execution = ? ORDER BY attempt, first_seq';

async function all<T>(connection: PoolConnection, sql: string, { id }: Row): Promise<T[]> {
  const [rows] = await connection.query<Found<T>[]>(sql, [id]);
  return rows;
}

// As a tail shows them.
function entriesOf({ attempt, first_seq: seq, codec, body }: Chunk, { state }: Row): LogEntry[] {
  const { items } = advance({ attempt, seq }, { state, attempts: [], lines: decodeLines(codec, body) });
  return items.flatMap(({ frame }) => ('entry' in frame ? [frame.entry] : []));
}
