// Ids: a UUIDv7 (RFC 9562), 16 bytes in tables, outside `<prefix>_` and 26 characters of lower-case Crockford base32, which sort by time,
// those of one process in the order in which they were made.
import { randomUUIDv7 } from 'node:crypto';
import { fault } from './errors.ts';

const PREFIXES = {
  user: 'usr',
  workspace: 'wsp',
  session: 'ses',
  task: 'tsk',
  comment: 'cmt',
  automation: 'aut',
  environment: 'env',
  execution: 'exe',
  artifact: 'art',
  server: 'srv',
  dispatcher: 'dsp',
  event: 'evt',
  hook: 'hok',
  delivery: 'dlv',
  subscription: 'sub',
  schedule: 'sch',
  tick: 'tik',
  backfill: 'bkf',
  secret: 'sec',
  variable: 'var',
} as const;

export type IdKind = keyof typeof PREFIXES;

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
const VALUES = new Map([...ALPHABET].map((char, value) => [char, value]));
const LENGTH = 26;

let time = 0;
let count = 0;

// The 12 bits behind the version count within a millisecond (RFC 9562, 6.2, method 1), the last 62 are random.
export function newBytes(): Buffer {
  const now = Date.now();
  count = now === time ? Math.min(count + 1, 0xfff) : 0;
  time = now;
  const bytes = Buffer.from(randomUUIDv7().replaceAll('-', ''), 'hex');
  bytes.writeUIntBE(time, 0, 6);
  bytes.writeUInt16BE(0x7000 | count, 6);
  return bytes;
}

export const newId = (kind: IdKind): string => fromBytes(kind, newBytes());

export function fromBytes(kind: IdKind, bytes: Uint8Array): string {
  let text = '';
  let rest = 0;
  let bits = 2; // 130 bits in 26 characters: the first one holds only three
  for (const byte of bytes) {
    rest = (rest << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(rest >> bits) & 31];
      rest &= (1 << bits) - 1;
    }
  }
  return `${PREFIXES[kind]}_${text}`;
}

// The bytes of an id. INVALID_ARGUMENT / ID_INVALID, naming the field, when it is of another kind or malformed.
export function toBytes(kind: IdKind, id: string, field = 'id'): Buffer {
  const bytes = parse(kind, id);
  if (bytes) return bytes;
  const expected = `${PREFIXES[kind]}_ and ${LENGTH} characters of lower-case base32`;
  throw fault('INVALID_ARGUMENT', 'ID_INVALID', `${field} must be the id of one ${kind}: ${expected}`, {
    violations: [{ field, description: `must be ${expected}` }],
    metadata: { field, expected: `${PREFIXES[kind]}_…` },
  });
}

function parse(kind: IdKind, id: string): Buffer | undefined {
  const prefix = `${PREFIXES[kind]}_`;
  if (!id.startsWith(prefix) || id.length !== prefix.length + LENGTH) return undefined;
  const bytes = Buffer.alloc(16);
  let rest = 0;
  let bits = -2;
  let at = 0;
  for (const char of id.slice(prefix.length)) {
    const value = VALUES.get(char);
    if (value === undefined) return undefined;
    rest = (rest << 5) | value;
    bits += 5;
    if (at === 0 && bits === 3 && value > 7) return undefined;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (rest >> bits) & 255;
      rest &= (1 << bits) - 1;
    }
  }
  return bytes;
}
