"""OpenTelemetry: a span for each call and for each job. Loaded only when an endpoint is set; else everything here does nothing.

Spans go by OTLP over HTTP, as those of the edge and of the services do: one endpoint serves all. The library's own instrumentation of
grpc.aio is not used: it takes every rpc that answers a stream for a generator.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from millrace.runner.v1 import job_pb2

_EXPORT_SECONDS = 3  # also how long a collector that is away can hold up the end of the process


@dataclass(frozen=True)
class Span:
    traceparent: str
    """W3C Trace Context of the span. What was given, when nothing is recorded."""
    note: Callable[[str, object], None]
    """Sets an attribute."""


_tracer = None


def set_up(server_id: str) -> None:
    """Starts to export, by the standard's environment variables."""
    global _tracer
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({'service.name': 'runner', 'service.instance.id': server_id}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_EXPORT_SECONDS)))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer('millrace.runner')


def shut_down() -> None:
    """Sends what waits."""
    if _tracer:
        from opentelemetry import trace

        trace.get_tracer_provider().shutdown()


@contextmanager
def job_span(job: job_pb2.Job) -> Iterator[Span]:
    """The span of one job, below the trace that its execution belongs to."""
    attributes = {'millrace.execution': job.execution_id, 'millrace.attempt': job.attempt}
    with _span('job', 'CONSUMER', {'traceparent': job.traceparent}, attributes) as span:
        yield span


@contextmanager
def call_span(path: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """The span of one call, below its caller's."""
    service, _, method = path.strip('/').partition('/')
    attributes = {'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': method}
    with _span(path.strip('/'), 'SERVER', headers, attributes) as span:
        yield span


@contextmanager
def _span(name: str, kind: str, headers: Mapping[str, str], attributes: dict[str, str | int]) -> Iterator[Span]:
    if not _tracer:
        yield Span(headers.get('traceparent', ''), lambda key, value: None)
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    parent = propagator.extract(dict(headers)) if headers.get('traceparent') else None
    with _tracer.start_as_current_span(name, context=parent, kind=SpanKind[kind], attributes=attributes) as span:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        yield Span(carrier.get('traceparent', ''), span.set_attribute)
