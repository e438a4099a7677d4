"""Stopping: jobs without a dispatcher, and a server that is told to end."""

import asyncio
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from millrace.runner.v1 import job_pb2
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc

WAITS = 'import time\nprint("up")\ntry:\n    time.sleep(600)\nfinally:\n    print("cleaned up")\n'


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


async def test_jobs_by_hand_need_no_dispatcher(start_runner, bearer) -> None:
    runner = start_runner(automation_orphan_seconds=0)
    async with grpc.aio.insecure_channel(runner.address) as channel:
        request = pb.RunRequest(job=job_pb2.Job(source='import time\ntime.sleep(0.3)\nprint("done")'))
        frames = [frame async for frame in pb_grpc.RunnerServiceStub(channel).Run(request, metadata=bearer)]
    assert frames[-1].result.outcome == job_pb2.Result.SUCCEEDED


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
