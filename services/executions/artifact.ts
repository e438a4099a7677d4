// What an artifact is, which limits hold for it, and which part of it a caller asks for.
import { Artifact } from '#gen/millrace/executions/v1/artifact.ts';
import type { ErrorReason } from '#gen/millrace/executions/v1/error_reason.ts';
import { type Fault, reasonsOf } from '#platform/errors.ts';
import { fromBytes } from '#platform/id.ts';

export interface ArtifactRow {
  id: Buffer;
  workspace: Buffer;
  execution: Buffer;
  attempt: number;
  claim_id: Buffer;
  state: 'UPLOADING' | 'STORED' | 'DELETED';
  name: string;
  content_type: string;
  size_bytes: number;
  sha256: string;
  create_time: Date | null;
  expire_time: Date;
}
export interface Limits {
  bytes: number; // of one
  attemptBytes: number; // of an attempt's together
  workspaceBytes: number;
  count: number; // of an execution's
  days: number; // the longest and usual time to keep one
}
export interface Part {
  from: number;
  length: number;
  isAll: boolean;
}

export const COLUMNS = [
  'id',
  'workspace',
  'execution',
  'attempt',
  'claim_id',
  'state',
  'name',
  'content_type',
  'size_bytes',
  'sha256',
  'create_time',
  'expire_time',
] as const;

const QUOTA_RETRY_MS = 60_000;
const faults = reasonsOf<keyof typeof ErrorReason>('executions');

export const messageOf = (row: ArtifactRow): Artifact =>
  Artifact.fromPartial({
    id: fromBytes('artifact', row.id),
    executionId: fromBytes('execution', row.execution),
    attempt: row.attempt,
    name: row.name,
    contentType: row.content_type,
    sizeBytes: row.size_bytes,
    sha256: row.sha256,
    createTime: row.create_time ?? undefined,
    expireTime: row.expire_time,
  });

// The key of its content in the blob store.
export const keyOf = ({ id }: Pick<ArtifactRow, 'id'>): string => fromBytes('artifact', id);

export const superseded = (): Fault => faults.failedPrecondition('CLAIM_SUPERSEDED', 'the attempt is not the present one of its execution');

export const tooMany = ({ count }: Limits): Fault =>
  faults.failedPrecondition('ARTIFACTS_TOO_MANY', `an execution may have ${count} artifacts at most`);

// Refuses what would be more than one artifact, its attempt or its workspace may have. `used` are those that are stored, without the one whose
// place it takes.
export function check(size: number, used: { attempt: number; workspace: number }, limits: Limits): void {
  if (size > limits.bytes) throw faults.failedPrecondition('ARTIFACT_TOO_LARGE', `an artifact may have ${limits.bytes} bytes at most`);
  if (used.attempt + size > limits.attemptBytes) {
    throw faults.failedPrecondition(
      'ARTIFACT_TOO_LARGE',
      `the artifacts of an attempt may have ${limits.attemptBytes} bytes together; ${used.attempt} are stored`,
    );
  }
  if (used.workspace + size > limits.workspaceBytes) throw overQuota(limits);
}

export const overQuota = ({ workspaceBytes }: Limits): Fault =>
  faults.exhausted('ARTIFACT_QUOTA', `the artifacts of a workspace may have ${workspaceBytes} bytes together: delete some`, QUOTA_RETRY_MS);

// The part that the fields of the request ask for, else the header `range` (RFC 9110, section 14.2): what is not one range of bytes is not heeded,
// nor is one of another content than `if-range` names.
export function partOf(
  { sizeBytes: size, sha256 }: Artifact,
  { offset, length }: { offset: number; length: number },
  { range = '', ifRange }: { range?: string | undefined; ifRange?: string | undefined },
): Part {
  if (offset > 0 || length > 0) return within(offset, length || size, size);
  const [matched, first = '', last = ''] = /^bytes=(\d{0,10})-(\d{0,10})$/.exec(range) ?? [];
  if (matched === undefined || (first === '' && last === '') || (ifRange && ifRange !== etagOf(sha256))) {
    return { from: 0, length: size, isAll: true };
  }
  if (first === '') return within(Math.max(0, size - Number(last)), Number(last), size);
  return within(Number(first), last === '' ? size : Number(last) - Number(first) + 1, size);
}

function within(from: number, length: number, size: number): Part {
  if (from >= size || length <= 0) {
    throw faults.invalid('RANGE_INVALID', `the artifact has ${size} bytes: nothing is there to be sent`, [
      { field: 'offset', description: `must be less than ${size}` },
    ]);
  }
  const sent = Math.min(length, size - from);
  return { from, length: sent, isAll: sent === size };
}

export const etagOf = (sha256: string): string => `"${sha256}"`;

// Never shown by a browser, whatever it holds. RFC 6266, section 4.3: a name in ASCII for those who know no other.
export function dispositionOf(name: string): string {
  const plain = name.replace(/[^\x20-\x7e]|["\\%]/g, '_');
  const exact = encodeURIComponent(name.toWellFormed()).replace(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  return `attachment; filename="${plain}"; filename*=UTF-8''${exact}`;
}
