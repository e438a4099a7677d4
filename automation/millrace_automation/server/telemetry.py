"""OpenTelemetry: a span for each call and for each job. Loaded only when an endpoint is set; else everything here does nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from millrace.runner.v1 import job_pb2


@dataclass(frozen=True)
class Span:
    traceparent: str
    """What the script's process is given."""
    end: Callable[[str], None]
    """Told the outcome."""


_tracer = None


def set_up(server_id: str) -> list[grpc.aio.ServerInterceptor]:
    """Starts to export, by the standard's environment variables, and gives the server's interceptors."""
    global _tracer
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.grpc import aio_server_interceptor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({'service.name': 'runner', 'service.instance.id': server_id}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer('millrace.runner')
    return [aio_server_interceptor()]


def shut_down() -> None:
    """Sends what waits."""
    if _tracer:
        from opentelemetry import trace

        trace.get_tracer_provider().shutdown()


@contextmanager
def job_span(job: job_pb2.Job) -> Iterator[Span]:
    """The span of one job, below the trace that it belongs to."""
    if not _tracer:
        yield Span(job.traceparent, lambda outcome: None)
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    parent = propagator.extract({'traceparent': job.traceparent} if job.traceparent else {})
    attributes = {'millrace.execution': job.execution_id, 'millrace.attempt': job.attempt}
    with _tracer.start_as_current_span('job', context=parent, kind=SpanKind.CONSUMER, attributes=attributes) as span:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        yield Span(carrier.get('traceparent', ''), lambda outcome: span.set_attribute('millrace.outcome', outcome))
