// Turns anything that was thrown into a fault that a caller may see. What is not foreseen is INTERNAL without its text.
import { trace } from '@opentelemetry/api';
import { Fault, fault, unavailable } from './errors.ts';

const DATABASE_AWAY = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOENT',
  'PROTOCOL_CONNECTION_LOST',
  'ER_SERVER_SHUTDOWN',
  'ER_CON_COUNT_ERROR',
  'ER_NORMAL_SHUTDOWN',
]);
const LOCKED = new Set(['ER_LOCK_DEADLOCK', 'ER_LOCK_WAIT_TIMEOUT']);

export function faultOf(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const { code, name, message, fatal } = (error ?? {}) as { code?: string; name?: string; message?: string; fatal?: boolean };
  if (isDatabaseAway(error)) return unavailable('the database does not answer; nothing is known to have changed, try again', 1000, error);
  if (code !== undefined && LOCKED.has(code))
    return fault('ABORTED', 'CONFLICT', 'the resource is being changed at the same time: try again', { retryAfterMs: 100, cause: error });
  const id = trace.getActiveSpan()?.spanContext().traceId;
  return fault('INTERNAL', 'UNEXPECTED', 'something went wrong on our side; the log has the details', {
    cause: { code, name, message, fatal },
    ...(id ? { metadata: { trace: id } } : {}),
  });
}

export function isDatabaseAway(error: unknown): boolean {
  const { code, name, message } = (error ?? {}) as { code?: string; name?: string; message?: string };
  if (name === 'KnexTimeoutError') return true;
  if (code !== undefined && DATABASE_AWAY.has(code)) return true;
  return /closed state|Connection lost|Pool is closed/.test(message ?? '');
}
