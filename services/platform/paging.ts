// Page tokens: opaque, bound to the query that made them.
import { createHash } from 'node:crypto';
import { fault } from './errors.ts';

export const pageSize = (asked: number): number => asked || 50;

const PAGE_BYTES = 2 * 1024 * 1024; // half of what a message may hold

// The page out of what was read, which is one row more than asked for: less when its messages are large. `last` is its last row when
// others follow, undefined at the end.
export function cutPage<T>(found: readonly T[], size: number, type: Encoder<T>): { items: T[]; last: T | undefined } {
  let bytes = 0;
  const items = found.slice(0, size).filter((row, index) => {
    if (bytes > PAGE_BYTES) return false;
    bytes += type.encode(row).finish().length;
    return index === 0 || bytes <= PAGE_BYTES;
  });
  return { items, last: items.length < found.length ? items.at(-1) : undefined };
}

interface Encoder<T> {
  encode(message: T): { finish(): Uint8Array };
}

const digest = (query: unknown): string => createHash('sha256').update(JSON.stringify(query)).digest('base64url').slice(0, 11);

export const encodePage = (query: unknown, position: unknown): string =>
  Buffer.from(JSON.stringify([digest(query), position])).toString('base64url');

// Where the page before ended; undefined for the first page.
export function decodePage<P>(token: string, query: unknown): P | undefined {
  if (token === '') return undefined;
  try {
    const [bound, position] = JSON.parse(Buffer.from(token, 'base64url').toString()) as [string, P];
    if (bound === digest(query)) return position;
  } catch {
    // told below, like a token of another query
  }
  throw fault('INVALID_ARGUMENT', 'PAGE_TOKEN_INVALID', 'the page token was not made for this query: start without one', {
    violations: [{ field: 'page_token', description: 'must be the next_page_token of an answer to the same query' }],
  });
}
