// The spans of attempts, from the claim to the end, in the traces that their executions belong to. They last as long as this process has
// the attempts: whoever adopts one goes on without. Nothing is kept while no telemetry is loaded.
import { type Context, context, propagation, ROOT_CONTEXT, type Span, SpanKind, trace } from '@opentelemetry/api';
import { LRUCache } from 'lru-cache';
import { hex } from '../engine/sql.ts';

const MOST = 10_000; // attempts that are not told to end, as those of a session that was lost, are forgotten in time

const open = new LRUCache<string, { span: Span; at: Context }>({ max: MOST, dispose: ({ span }) => span.end() });

// What the server shall put its own span below, as W3C Trace Context.
export function begin(claimId: Buffer, traceparent: string | null, attributes: Record<string, string | number>): string {
  const above = propagation.extract(ROOT_CONTEXT, { traceparent });
  const span = trace.getTracer('millrace').startSpan('attempt', { kind: SpanKind.PRODUCER, attributes }, above);
  if (!span.isRecording()) return traceparent ?? '';
  const at = trace.setSpan(above, span);
  open.set(hex(claimId), { span, at });
  const carrier: { traceparent?: string } = {};
  propagation.inject(at, carrier);
  return carrier.traceparent ?? '';
}

// Work that an attempt causes belongs to its trace.
export const within = <T>(claimId: Buffer, work: () => T): T => context.with(open.get(hex(claimId))?.at ?? context.active(), work);

export const end = (claimId: Buffer): void => void open.delete(hex(claimId));

// What others will bring to its end.
export const endAll = (): void => open.clear();
