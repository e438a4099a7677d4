"""Traces: a job's span belongs to the trace that its execution belongs to."""

import asyncio
import gzip
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from millrace.runner.v1 import job_pb2
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

AUTOMATION = Path(__file__).resolve().parents[2]
TRACE, PARENT = '0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'


class Collector(http.server.ThreadingHTTPServer):
    """What takes OTLP over HTTP, as a real collector does."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Intake)
        self.url = f'http://127.0.0.1:{self.server_port}'
        self.spans: list[tuple[dict[str, object], trace_pb2.Span]] = []


class Intake(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers['content-length']))
        if self.headers.get('content-encoding') == 'gzip':
            body = gzip.decompress(body)
        if self.path == '/v1/traces':
            for resource in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
                self.server.spans += [(MessageToDict(resource.resource), span) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_job_is_a_span_of_its_executions_trace(start_runner, collector, bearer) -> None:
    runner = await asyncio.to_thread(start_runner, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    job = job_pb2.Job(source='print("x")', execution_id='exe_7', attempt=2, traceparent=f'00-{TRACE}-{PARENT}-01')
    async with grpc.aio.insecure_channel(runner.address) as channel:
        frames = [frame async for frame in pb_grpc.RunnerServiceStub(channel).Run(pb.RunRequest(job=job), metadata=bearer)]
    assert frames[-1].result.outcome == job_pb2.Result.SUCCEEDED
    runner.process.terminate()
    assert await asyncio.to_thread(runner.wait) == 0
    spans = {span.name: (resource, span) for resource, span in collector.spans}
    resource, span = spans['job']
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = {attribute.key: attribute.value for attribute in span.attributes}
    assert attributes['millrace.execution'].string_value == 'exe_7'
    assert attributes['millrace.attempt'].int_value == 2
    assert attributes['millrace.outcome'].string_value == 'SUCCEEDED'
    assert {'key': 'service.name', 'value': {'stringValue': 'runner'}} in resource['attributes']
    assert 'millrace.runner.v1.RunnerService/Run' in spans  # the call has one of its own


def test_nothing_of_it_is_loaded_without_an_endpoint() -> None:
    script = (
        f'import sys; sys.path[:0] = {[str(AUTOMATION), sys.path[0]]!r}; import millrace_automation.server.main\n'
        'print([name for name in sys.modules if "opentelemetry" in name])'
    )
    ended = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == '[]\n'
