// Faults on the wire: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo in `grpc-status-details-bin` (google.aip.dev/193).
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import type { Any } from '#gen/google/protobuf/any.ts';
import { BadRequest, ErrorInfo, RetryInfo } from '#gen/google/rpc/error_details.ts';
import { Status } from '#gen/google/rpc/status.ts';
import { type Code, Fault } from './errors.ts';

const DETAILS = 'grpc-status-details-bin';
const TYPES = 'type.googleapis.com/google.rpc.';
const MAX_VIOLATIONS = 50;

export function toStatus(fault: Fault): Partial<StatusObject> {
  const details: Any[] = [
    pack('ErrorInfo', ErrorInfo.encode({ reason: fault.reason, domain: fault.domain, metadata: fault.metadata }).finish()),
  ];
  if (fault.violations.length > 0) {
    const fieldViolations = fault.violations
      .slice(0, MAX_VIOLATIONS)
      .map((v) => ({ ...v, reason: fault.reason, localizedMessage: undefined }));
    details.push(pack('BadRequest', BadRequest.encode({ fieldViolations }).finish()));
  }
  if (fault.retryAfterMs !== undefined) {
    const retryDelay = { seconds: Math.floor(fault.retryAfterMs / 1000), nanos: Math.round((fault.retryAfterMs % 1000) * 1e6) };
    details.push(pack('RetryInfo', RetryInfo.encode({ retryDelay }).finish()));
  }
  const metadata = new Metadata();
  if (fault.retryAfterMs !== undefined) metadata.set('retry-after', `${Math.ceil(fault.retryAfterMs / 1000)}`); // RFC 9110, for REST
  metadata.set(DETAILS, Buffer.from(Status.encode({ code: fault.code, message: fault.message, details }).finish()));
  return { code: fault.code, details: fault.message, metadata };
}

const pack = (type: string, value: Uint8Array): Any => ({ typeUrl: TYPES + type, value: Buffer.from(value) });

// The fault that another service answered with.
export function fromServiceError(error: ServiceError): Fault {
  const code = (status[error.code] ?? 'UNKNOWN') as Code;
  const bytes = error.metadata?.get(DETAILS)[0];
  if (!(bytes instanceof Uint8Array))
    return new Fault(code, reasonOfTransport(error.code), error.details || error.message, { cause: error });
  const details = Status.decode(bytes).details;
  const find = (type: string) => details.find((any) => any.typeUrl === TYPES + type)?.value;
  const info = find('ErrorInfo');
  const bad = find('BadRequest');
  const retry = find('RetryInfo');
  const delay = retry ? RetryInfo.decode(retry).retryDelay : undefined;
  const { reason, domain, metadata } = info ? ErrorInfo.decode(info) : { reason: 'UNEXPECTED', domain: 'millrace', metadata: {} };
  return new Fault(code, reason, error.details, {
    domain,
    metadata,
    ...(bad ? { violations: BadRequest.decode(bad).fieldViolations } : {}),
    ...(delay ? { retryAfterMs: delay.seconds * 1000 + delay.nanos / 1e6 } : {}),
    cause: error,
  });
}

const reasonOfTransport = (code: status): string => (code === status.UNAVAILABLE ? 'DEPENDENCY_UNAVAILABLE' : 'UNEXPECTED');
