// The one vocabulary of errors: a gRPC code, a reason that a caller may branch on, and a message that says what to do.
import { status } from '@grpc/grpc-js';
import type { ErrorReason } from '#gen/millrace/options/v1/error_reason.ts';

export type Code = keyof typeof status;
export type CommonReason = Exclude<keyof typeof ErrorReason, 'UNRECOGNIZED' | 'ERROR_REASON_UNSPECIFIED'>;
export interface Violation {
  field: string;
  description: string;
}
interface Details {
  domain?: string;
  metadata?: Record<string, string>;
  violations?: Violation[];
  retryAfterMs?: number;
  cause?: unknown;
}

export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: status;
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Record<string, string>;
  readonly violations: readonly Violation[];
  readonly retryAfterMs: number | undefined;

  constructor(code: Code, reason: string, message: string, details: Details = {}) {
    super(message, { cause: details.cause });
    this.code = status[code];
    this.reason = reason;
    this.domain = details.domain ?? 'millrace';
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
  }
}

export const fault = (code: Code, reason: CommonReason, message: string, details?: Details): Fault =>
  new Fault(code, reason, message, details);

export const notFound = (what: string, id: string): Fault =>
  fault('NOT_FOUND', 'RESOURCE_NOT_FOUND', `there is no ${what} ${id} in this workspace`, { metadata: { resource: what, id } });

export const invalid = (field: string, description: string): Fault =>
  fault('INVALID_ARGUMENT', 'FIELD_INVALID', `${field} ${description}`, { violations: [{ field, description }] });

export const noFields = (known: readonly string[]): Fault =>
  fault('INVALID_ARGUMENT', 'NO_FIELDS', `nothing to change: name at least one of ${known.join(', ')}`, {
    metadata: { fields: known.join(',') },
  });

export const unavailable = (message: string, retryAfterMs = 1000, cause?: unknown): Fault =>
  fault('UNAVAILABLE', 'DEPENDENCY_UNAVAILABLE', message, { retryAfterMs, cause });

export const exhausted = (message: string, retryAfterMs: number): Fault =>
  fault('RESOURCE_EXHAUSTED', 'OVERLOADED', message, { retryAfterMs });

export const aborted = (message: string): Fault => fault('ABORTED', 'CONFLICT', message);

export const unauthenticated = (reason: CommonReason, message: string): Fault => fault('UNAUTHENTICATED', reason, message);

export const permissionDenied = (reason: CommonReason, message: string, metadata: Record<string, string> = {}): Fault =>
  fault('PERMISSION_DENIED', reason, message, { metadata });

// Makers for the reasons of one area: `const faults = reasonsOf<keyof typeof ErrorReason>('tasks')`.
export function reasonsOf<Reason extends string>(area: string) {
  const domain = `${area}.millrace`;
  const plain =
    (code: Code) =>
    (reason: Reason, message: string, metadata: Record<string, string> = {}): Fault =>
      new Fault(code, reason, message, { domain, metadata });
  return {
    failedPrecondition: plain('FAILED_PRECONDITION'),
    alreadyExists: plain('ALREADY_EXISTS'),
    notFound: plain('NOT_FOUND'),
    unauthenticated: plain('UNAUTHENTICATED'),
    permissionDenied: plain('PERMISSION_DENIED'),
    invalid: (reason: Reason, message: string, violations: Violation[] = [], metadata: Record<string, string> = {}): Fault =>
      new Fault('INVALID_ARGUMENT', reason, message, { domain, violations, metadata }),
    exhausted: (reason: Reason, message: string, retryAfterMs: number, metadata: Record<string, string> = {}): Fault =>
      new Fault('RESOURCE_EXHAUSTED', reason, message, { domain, retryAfterMs, metadata }),
  };
}
