"""Jobs by hand, checks of source, and what a job's end is called."""

import asyncio
import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import job_pb2
from millrace.runner.v1 import runner_service_pb2 as pb

Outcome = job_pb2.Result


def lines_of(frames) -> list[job_pb2.Line]:
    return [frame.line for frame in frames if frame.WhichOneof('frame') == 'line']


async def test_a_run_streams_started_lines_progress_and_result(run, sha256) -> None:
    source = """
import logging, millrace, sys
def main(name: str, times: int = 1) -> dict:
    for n in range(times):
        print('hello', name, n)
    print('to stderr', file=sys.stderr)
    logging.getLogger('mine').warning('careful')
    millrace.log('by hand')
    millrace.progress(0.5, 'half')
    return {'greeted': name}
"""
    frames = await run(source, input_json='{"name": "Ada", "times": 2}')
    kinds = [frame.WhichOneof('frame') for frame in frames]
    assert kinds[0] == 'started'
    assert kinds[-1] == 'result'
    assert 'progress' in kinds
    started = frames[0].started
    assert started.sandbox_tier >= 1
    assert started.isolation == spec_pb2.AutomationSpec.FRESH
    lines = lines_of(frames)
    assert [line.seq for line in lines] == list(range(len(lines)))
    assert [line.text for line in lines if line.stream == job_pb2.Line.STDOUT] == ['hello Ada 0', 'hello Ada 1']
    assert [line.text for line in lines if line.stream == job_pb2.Line.STDERR] == ['to stderr']
    logged = [(line.level, line.text) for line in lines if line.stream == job_pb2.Line.LOG]
    assert ('WARNING', 'careful') in logged
    assert any(text == 'by hand' for _, text in logged)
    assert [frame.progress.message for frame in frames if frame.WhichOneof('frame') == 'progress'] == ['half']
    result = frames[-1].result
    assert (result.outcome, json.loads(result.output_json)) == (Outcome.SUCCEEDED, {'greeted': 'Ada'})
    assert (result.log_count, result.log_sha256) == (len(lines), sha256(lines))
    assert result.log_bytes == sum(len(line.text.encode()) + 1 for line in lines)
    assert result.peak_memory_kib > 0


@pytest.mark.parametrize(
    ('source', 'outcome', 'error_type'),
    [
        ('print("plain")', Outcome.SUCCEEDED, ''),
        ('raise SystemExit(0)', Outcome.SUCCEEDED, ''),
        ('raise SystemExit(3)', Outcome.FAILED, 'ExitCode'),
        ('import os\nos._exit(4)', Outcome.FAILED, 'ExitCode'),
        ('def main():\n    raise KeyError("x")', Outcome.FAILED, 'KeyError'),
        ('def main(', Outcome.FAILED, 'SyntaxError'),
        ('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)', Outcome.FAILED, 'Killed'),
        ('def main():\n    return "x" * 1_100_000', Outcome.FAILED, 'OutputTooLarge'),
        ('def main():\n    return object()', Outcome.FAILED, 'OutputInvalid'),
    ],
)
async def test_each_end_has_its_name(run, source, outcome, error_type) -> None:
    result = (await run(source))[-1].result
    assert (result.outcome, result.error_type) == (outcome, error_type), result
    assert bool(result.error_message) == (outcome != Outcome.SUCCEEDED)


async def test_too_much_processor_time_is_named(run) -> None:
    result = (await run('while True:\n    pass\n', resources=spec_pb2.Resources(cpu_seconds=1)))[-1].result
    assert (result.error_type, result.error_message) == ('Killed', 'It used more than 1 s of processor time.')


async def test_an_exception_brings_its_message_and_the_scripts_own_frames(run) -> None:
    result = (await run('def inner(n):\n    return 1 / n\n\ndef main():\n    return inner(0)\n'))[-1].result
    assert (result.error_type, result.error_message) == ('ZeroDivisionError', 'division by zero')
    assert 'return inner(0)' in result.traceback
    assert 'return 1 / n' in result.traceback
    assert 'millrace_automation' not in result.traceback


async def test_unfinished_text_is_delivered_while_the_script_waits_and_bars_replace_themselves(run) -> None:
    source = """
import sys, time
sys.stdout.write('name? '); sys.stdout.flush()
time.sleep(0.6)
print('Ada')
for n in range(50):
    sys.stdout.write(f'\\r{n}%')
print()
sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush()
"""
    lines = lines_of(await run(source))
    assert [(line.text, line.partial) for line in lines] == [('name? ', True), ('Ada', False), ('49%', False), ('\ufffd', False)]


async def test_a_line_of_five_megabytes_is_split(run) -> None:
    lines = lines_of(await run('print("x" * 5_000_000)'))
    assert ''.join(line.text for line in lines) == 'x' * 5_000_000
    assert {line.partial for line in lines[:-1]} == {True}
    assert not lines[-1].partial
    assert max(len(line.text) for line in lines) == 16 * 1024


async def test_a_job_that_takes_too_long_is_asked_to_stop_and_times_out(run) -> None:
    frames = await run(
        'import time\ntry:\n    time.sleep(600)\nfinally:\n    print("cleaned up")\n', start_to_close=Duration(nanos=500_000_000)
    )
    result = frames[-1].result
    assert (result.outcome, result.error_type) == (Outcome.TIMED_OUT, 'StartToCloseTimeout')
    assert [line.text for line in lines_of(frames)] == ['cleaned up']


async def test_a_job_that_ignores_the_request_is_killed_after_its_grace(run) -> None:
    source = 'import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint("up")\nwhile True:\n    time.sleep(1)\n'
    frames = await run(source, start_to_close=Duration(nanos=500_000_000), grace=Duration(nanos=300_000_000))
    assert frames[-1].result.outcome == Outcome.TIMED_OUT


async def test_silence_longer_than_the_heartbeat_times_out(run) -> None:
    source = 'import millrace, time\nfor n in range(5):\n    millrace.progress(n / 5)\n    time.sleep(0.4)\ntime.sleep(600)\n'
    frames = await run(source, heartbeat=Duration(seconds=1))
    result = frames[-1].result
    assert (result.outcome, result.error_type) == (Outcome.TIMED_OUT, 'HeartbeatTimeout')
    assert max(frame.progress.fraction for frame in frames if frame.WhichOneof('frame') == 'progress') == 0.8


async def test_a_script_that_never_reports_misses_its_first_heartbeat(run) -> None:
    result = (await run('import time\ntime.sleep(600)', heartbeat=Duration(seconds=1)))[-1].result
    assert (result.outcome, result.error_type) == (Outcome.TIMED_OUT, 'HeartbeatTimeout')


async def test_a_silent_run_sends_signs_of_life(run) -> None:
    frames = await run('import time\ntime.sleep(5.5)')
    assert [frame.WhichOneof('frame') for frame in frames] == ['started', 'keep_alive', 'result']


async def test_cancelling_the_call_stops_the_job(stub, bearer, runner) -> None:
    job = job_pb2.Job(source='import time\nprint("up")\ntime.sleep(600)', execution_id='exe_call')
    call = stub.Run(pb.RunRequest(job=job), metadata=bearer)
    async for frame in call:
        if frame.WhichOneof('frame') == 'line':
            break
    async with asyncio.timeout(10):
        while (await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=bearer)).running != 1:
            pass  # the process of the test before may still be going
    call.cancel()
    async with asyncio.timeout(10):
        while (await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=bearer)).running:
            pass


async def test_cancel_stops_a_job_by_its_execution(stub, bearer, details) -> None:
    job = job_pb2.Job(source='import time\nprint("up")\ntime.sleep(600)', execution_id='exe_cancel')
    frames = []
    async for frame in stub.Run(pb.RunRequest(job=job), metadata=bearer):
        frames.append(frame)
        if frame.WhichOneof('frame') == 'line':
            await stub.Cancel(pb.CancelRequest(execution_id='exe_cancel'), metadata=bearer)
    assert frames[-1].result.outcome == Outcome.CANCELLED
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Cancel(pb.CancelRequest(execution_id='exe_cancel'), metadata=bearer)
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    assert details(refusal.value)['ErrorInfo'].reason == 'RESOURCE_NOT_FOUND'


async def test_a_run_without_a_free_slot_is_refused(start_runner, keys, bearer, details) -> None:
    small = start_runner(automation_slots=1)
    async with grpc.aio.insecure_channel(small.address) as channel:
        run = channel.unary_stream(
            '/millrace.runner.v1.RunnerService/Run',
            request_serializer=pb.RunRequest.SerializeToString,
            response_deserializer=pb.RunResponse.FromString,
        )
        first = run(pb.RunRequest(job=job_pb2.Job(source='import time\ntime.sleep(600)')), metadata=bearer)
        assert (await first.read()).HasField('started')
        second = run(pb.RunRequest(job=job_pb2.Job(source='1')), metadata=bearer)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await second.read()
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(refusal.value)['ErrorInfo'].reason == 'OVERLOADED'
        assert details(refusal.value)['RetryInfo'].retry_delay.ToMilliseconds() == 1000


@pytest.mark.parametrize(
    ('fields', 'field'),
    [
        ({'source': ''}, 'job.source'),
        ({'source': 'é' * 131_073}, 'job.source'),
        ({'source': '1', 'input_json': '[]'}, 'job.input_json'),
        ({'source': '1', 'input_json': '{"a": NaN}'}, 'job.input_json'),
        ({'source': '1', 'input_json': '{'}, 'job.input_json'),
        ({'source': '1', 'input_json': '[' * 100_000}, 'job.input_json'),
        ({'source': '1', 'input_json': '{"a": "%s"}' % ('x' * 1_048_570)}, 'job.input_json'),
        ({'source': '1', 'execution_id': 'x' * 65}, 'job.execution_id'),
        ({'source': '1', 'claim_id': b'x' * 17}, 'job.claim_id'),
        ({'source': '1', 'resources': spec_pb2.Resources(memory_mib=-1)}, 'job.resources.memory_mib'),
        ({'source': '1', 'start_to_close': Duration(seconds=-1)}, 'job.start_to_close'),
        ({'source': '1', 'start_to_close': Duration(seconds=86401)}, 'job.start_to_close'),
        ({'source': '1', 'environment': '../../etc'}, 'job.environment'),
        (None, 'job'),
    ],
)
async def test_what_breaks_the_contract_is_refused_by_name(stub, bearer, details, fields, field) -> None:
    request = pb.RunRequest() if fields is None else pb.RunRequest(job=job_pb2.Job(**fields))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Run(request, metadata=bearer).read()
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = details(refusal.value)
    assert (found['ErrorInfo'].reason, found['ErrorInfo'].domain) == ('FIELD_INVALID', 'runner.millrace')
    assert [violation.field for violation in found['BadRequest'].field_violations] == [field]


async def test_sound_source_yields_its_schemas(stub, bearer) -> None:
    source = 'def main(name: str, times: int = 1) -> list[str]:\n    return [name] * times\n'
    found = await stub.ValidateSource(pb.ValidateSourceRequest(source=source), metadata=bearer)
    assert not found.problems
    assert found.has_main
    assert found.input_schema['properties']['name']['type'] == 'string'
    assert list(found.input_schema['required']) == ['name']
    assert found.output_schema['type'] == 'array'


async def test_faulty_source_yields_its_problem_with_line_and_column(stub, bearer) -> None:
    found = await stub.ValidateSource(pb.ValidateSourceRequest(source='x = 1\ndef main(:\n    pass\n'), metadata=bearer)
    assert [(problem.line, problem.column) for problem in found.problems] == [(2, 10)]
    assert found.problems[0].message
    assert not found.HasField('input_schema')


async def test_many_checks_at_once_are_all_answered_while_jobs_run(stub, bearer) -> None:
    request = pb.ValidateSourceRequest(source='def main():\n    pass\n')
    found = await asyncio.gather(*(stub.ValidateSource(request, metadata=bearer) for _ in range(8)))
    assert all(answer.has_main for answer in found)


async def test_the_server_tells_what_it_can_do(stub, bearer, runner) -> None:
    found = await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=bearer)
    assert found.server_id == runner.server_id
    assert found.sandbox_tier >= found.minimum_tier == 1
    assert found.slots == 4
    assert found.python_version.startswith('3.')
    assert found.probes
    assert all(probe.refused for probe in found.probes)
