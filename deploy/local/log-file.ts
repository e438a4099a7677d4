// The log files of parts. The parts write to them themselves, so that no line depends on the launcher.
import { closeSync, copyFileSync, openSync, readSync, statSync, truncateSync } from 'node:fs';

const ROTATE_BYTES = 64 * 1024 * 1024;
const TAIL_BYTES = 64 * 1024;

export const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

// Keeps one older file. The writers append, so they go on at the start of the emptied one; lines written in between may be lost.
export function rotate(path: string, limit = ROTATE_BYTES): void {
  if (sizeOf(path) < limit) return;
  copyFileSync(path, `${path}.1`);
  truncateSync(path);
}

// The last lines written after a position.
export function lastLines(path: string, from: number, count: number): string[] {
  const size = sizeOf(path);
  const start = Math.max(from > size ? 0 : from, size - TAIL_BYTES);
  if (size <= start) return [];
  const bytes = Buffer.alloc(size - start);
  const file = openSync(path, 'r');
  try {
    readSync(file, bytes, 0, bytes.length, start);
  } finally {
    closeSync(file);
  }
  return bytes.toString('utf8').trimEnd().split('\n').slice(-count);
}
