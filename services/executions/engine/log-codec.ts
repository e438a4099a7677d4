// Chunks of log: encoded lines behind one another, plain or compressed, and the cursor of an entry.
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { Line } from '#gen/millrace/runner/v1/job.ts';
import { OutputItem } from '#gen/millrace/runner/v1/session.ts';

export const PLAIN = 0;
export const ZSTD = 1;
const LEVEL = 3;
const MAX_BYTES = 64 * 1024 * 1024; // more than any segment: what claims to be larger is damaged
const CURSOR = /^([1-9]\d{0,8})\.(0|[1-9]\d{0,8})$/;

// The lines as a message with nothing but them: two bodies behind one another are a body.
export const encodeLines = (lines: readonly Line[]): Buffer =>
  Buffer.from(OutputItem.encode(OutputItem.fromPartial({ lines: lines as Line[] })).finish());

export const decodeLines = (codec: number, body: Uint8Array): Line[] => OutputItem.decode(codec === ZSTD ? decompress(body) : body).lines;

export const compress = (body: Uint8Array): Buffer => zstdCompressSync(body, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } });

export const decompress = (body: Uint8Array): Buffer => zstdDecompressSync(body, { maxOutputLength: MAX_BYTES });

export const formatCursor = (attempt: number, seq: number): string => `${attempt}.${seq}`;

// Undefined when no log made it.
export function parseCursor(cursor: string): { attempt: number; seq: number } | undefined {
  const [, attempt, seq] = CURSOR.exec(cursor) ?? [];
  return attempt === undefined || seq === undefined ? undefined : { attempt: Number(attempt), seq: Number(seq) };
}
