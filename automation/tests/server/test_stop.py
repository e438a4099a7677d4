"""Stopping: jobs without a dispatcher, and a server that is told to end."""

import asyncio
import signal
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from millrace.runner.v1 import job_pb2, session_pb2
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc

WAITS = 'import time\ntry:\n    print("up")\n    time.sleep(600)\nfinally:\n    print("cleaned up")\n'


async def test_jobs_outlive_a_short_absence_of_their_dispatcher(start_runner, dispatch, job) -> None:
    runner = start_runner(automation_orphan_seconds=30)
    first = await dispatch(runner, epoch=1)
    one = job(WAITS)
    await first.start(one)
    await first.printed(one)
    await first.close()
    await asyncio.to_thread(runner.log, 'a stream ended')
    await asyncio.to_thread(runner.log, 'a stream ended')
    second = await dispatch(runner, epoch=2)
    assert [item.claim_id for item in second.opened.held] == [one.claim_id]
    await second.printed(one)
    assert not any(item.HasField('result') for item in second.items(one))
    await second.cancel(one)
    assert (await second.result(one)).outcome == job_pb2.Result.CANCELLED


async def test_jobs_without_a_dispatcher_are_stopped_after_a_while_and_their_results_kept(start_runner, dispatch, job) -> None:
    runner = start_runner(automation_orphan_seconds=0.3)
    first = await dispatch(runner, epoch=1)
    one = job(WAITS)
    await first.start(one)
    await first.printed(one)
    await first.close()
    await asyncio.to_thread(runner.log, 'no dispatcher came back; its jobs are stopped')
    second = await dispatch(runner, epoch=2)
    result = await second.result(one)
    assert (result.outcome, result.error_type) == (job_pb2.Result.FAILED, 'WorkerLost')
    assert [line.text for line in second.lines(one)] == ['up', 'cleaned up']


STANDS_STILL = """
import grpc, os, signal, sys, threading
def requests():
    yield bytes.fromhex(sys.argv[3])
    threading.Event().wait()
session = grpc.insecure_channel(sys.argv[1]).stream_stream('/millrace.runner.v1.RunnerService/Session')
call = session(requests(), metadata=(('authorization', sys.argv[2]),))
next(call)
print('open', flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


async def test_a_dispatcher_that_stands_still_is_noticed(start_runner, keys) -> None:
    runner = start_runner()
    opening = session_pb2.SessionRequest(open=session_pb2.SessionOpen(dispatcher_id='dsp_still', epoch=1, channel='CONTROL'))
    told = (runner.address, f'Bearer {keys.token()}', opening.SerializeToString().hex())
    dispatcher = await asyncio.create_subprocess_exec(
        sys.executable, '-c', STANDS_STILL, *told, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert await dispatcher.stdout.readline() == b'open\n'
        assert (await asyncio.to_thread(runner.log, 'a stream ended'))['dispatcher'] == 'dsp_still'
    finally:
        dispatcher.kill()
        await dispatcher.wait()


async def test_jobs_by_hand_need_no_dispatcher(start_runner, dispatch, bearer) -> None:
    runner = start_runner(automation_orphan_seconds=0)
    async with grpc.aio.insecure_channel(runner.address) as channel:
        job = job_pb2.Job(source='import time\nprint("up")\ntime.sleep(600)', execution_id='exe_hand')
        stub = pb_grpc.RunnerServiceStub(channel)
        frames = []
        async for frame in stub.Run(pb.RunRequest(job=job), metadata=bearer):
            frames.append(frame)
            if frame.WhichOneof('frame') == 'line':
                await (await dispatch(runner, epoch=1)).close()
                for _ in range(2):
                    await asyncio.to_thread(runner.log, 'a stream ended')
                await stub.Cancel(pb.CancelRequest(execution_id='exe_hand'), metadata=bearer)
    assert frames[-1].result.outcome == job_pb2.Result.CANCELLED  # as asked, not lost


async def test_draining_finishes_what_runs_waits_for_confirmation_and_ends_well(start_runner, dispatch, job, bearer) -> None:
    runner = start_runner()
    dispatcher = await dispatch(runner, epoch=1)
    one, late = job('import time\nprint("up")\ntime.sleep(1)\nprint("done")\n'), job('print("late")')
    await dispatcher.start(one)
    await dispatcher.printed(one)
    async with grpc.aio.insecure_channel(runner.address) as channel:
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await states.read()).status == health_pb2.HealthCheckResponse.SERVING
        runner.process.terminate()
        await dispatcher.control.next('draining')
        assert (await states.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        states.cancel()
        await dispatcher.start(late)
        assert (await dispatcher.control.next('refused')).refused.items[0].reason == 'DRAINING'
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await pb_grpc.RunnerServiceStub(channel).Run(pb.RunRequest(job=late), metadata=bearer).read()
        assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
    status, report = await asyncio.to_thread(runner.get, '/readyz')
    assert status == 503
    assert '"draining": true' in report
    result = await dispatcher.result(one)
    assert result.outcome == job_pb2.Result.SUCCEEDED
    assert runner.process.poll() is None  # until it is confirmed
    again = await dispatch(runner, epoch=2)
    assert again.opened.draining
    assert again.opened.credits == 0
    await again.result(one)
    await again.confirm(one, lines=2, started=True, result=True)
    assert await asyncio.to_thread(runner.wait) == 0


async def test_what_outlasts_the_time_to_drain_is_stopped(start_runner, dispatch, job) -> None:
    runner = start_runner(automation_drain_seconds=0.2)
    dispatcher = await dispatch(runner, epoch=1)
    one = job(WAITS)
    await dispatcher.start(one)
    await dispatcher.printed(one)
    runner.process.send_signal(signal.SIGINT)
    result = await dispatcher.result(one)
    assert (result.outcome, result.error_type) == (job_pb2.Result.FAILED, 'WorkerLost')
    assert [line.text for line in dispatcher.lines(one)] == ['up', 'cleaned up']
    await dispatcher.confirm(one, lines=2, started=True, result=True)
    assert await asyncio.to_thread(runner.wait) == 0


async def test_a_second_signal_stops_at_once(start_runner, dispatch, job) -> None:
    runner = start_runner()
    dispatcher = await dispatch(runner, epoch=1)
    one = job(WAITS)
    await dispatcher.start(one)
    await dispatcher.printed(one)
    runner.process.terminate()
    await dispatcher.control.next('draining')
    runner.process.terminate()
    assert await asyncio.to_thread(runner.wait) == 1


async def test_an_idle_server_ends_at_once(start_runner) -> None:
    runner = start_runner()
    runner.process.terminate()
    assert await asyncio.to_thread(runner.wait) == 0


async def test_below_the_minimum_tier_nothing_runs_and_everyone_can_see_why(start_runner, dispatch, job, bearer) -> None:
    runner = start_runner(automation_sandbox_min_tier=3)
    status, report = await asyncio.to_thread(runner.get, '/readyz')
    assert status == 503
    assert 'is below the minimum 3' in report
    dispatcher = await dispatch(runner, epoch=1)
    assert dispatcher.opened.credits == 0
    await dispatcher.start(job('print("never")'))
    assert (await dispatcher.control.next('refused')).refused.items[0].reason == 'SANDBOX_UNAVAILABLE'
    async with grpc.aio.insecure_channel(runner.address) as channel:
        stub = pb_grpc.RunnerServiceStub(channel)
        described = await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=bearer)
        assert described.sandbox_tier < described.minimum_tier == 3
        for call in (
            stub.Run(pb.RunRequest(job=job('1')), metadata=bearer),
            stub.ValidateSource(pb.ValidateSourceRequest(source='1'), metadata=bearer),
        ):
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert runner.complaints() == ['the sandbox is below the lowest tier that is accepted: no job will run']


async def test_a_taken_port_ends_the_process_with_a_word(start_runner, runner) -> None:
    with pytest.raises(AssertionError, match='ended with code 1') as ended:
        await asyncio.to_thread(start_runner, automation_address=runner.address)
    assert runner.address in str(ended.value)
