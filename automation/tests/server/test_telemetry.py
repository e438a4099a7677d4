"""Traces: a job's span belongs to the trace that its execution belongs to."""

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from millrace.runner.v1 import job_pb2
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

AUTOMATION = Path(__file__).resolve().parents[2]
TRACE, PARENT = '0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[object] = []

    async def Export(self, request, context):
        for resource in request.resource_spans:
            self.spans += [(MessageToDict(resource.resource), span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector():
    server, servicer = grpc.aio.server(), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.url = f'http://127.0.0.1:{server.add_insecure_port("127.0.0.1:0")}'
    await server.start()
    yield servicer
    await server.stop(None)


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
