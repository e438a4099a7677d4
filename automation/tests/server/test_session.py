"""The session of a dispatcher: two streams, credits, confirmation, take-over, back-pressure."""

import asyncio
import contextlib

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from millrace.runner.v1 import job_pb2, session_pb2

SLEEPS = 'import time\nprint("up")\ntime.sleep(600)\n'
FLOOD = 'line = "x" * 1023\nfor n in range(20_000):\n    print(line)\n'


# Tells a verdict, says that it used more than there is, and stays.
STAYS = """
import os, struct, time
print('before')
def tell(kind, body): os.write(3, struct.pack('<cBQQ', kind, 1, 7, 0) + body)
tell(b'U', struct.pack('<dQ', 1e9, 2**40))
tell(b'R', b'"done"')
time.sleep(0.3)
print('after')
time.sleep(600)
"""


async def settle(dispatcher, *jobs) -> None:
    """Confirms the results of the jobs, once they are there."""
    for job in jobs:
        await dispatcher.result(job)
        await dispatcher.confirm(job, lines=2**31 - 1, started=True, result=True)


async def test_a_job_is_started_told_and_confirmed(dispatch, job, sha256) -> None:
    dispatcher = await dispatch()
    assert dispatcher.opened.server_id.startswith('srv_')
    assert len(dispatcher.opened.server_id) == 30
    await dispatcher.control.until(lambda: dispatcher.credits() == 4)  # of a test before it a process may still end
    assert not dispatcher.opened.held
    one = job('def main(n):\n    print("hello")\n    return n + 1\n', input_json='{"n": 1}')
    await dispatcher.start(one)
    result = await dispatcher.result(one)
    assert result.outcome == job_pb2.Result.SUCCEEDED
    assert result.output_json == '2'
    items = dispatcher.items(one)
    assert items[0].HasField('started')
    assert items[0].execution_id == one.execution_id
    lines = dispatcher.lines(one)
    assert [(line.seq, line.text, line.stream) for line in lines] == [(0, 'hello', job_pb2.Line.STDOUT)]
    assert (result.log_count, result.log_sha256) == (1, sha256(lines))
    await dispatcher.confirm(one, lines=1, started=True, result=True)
    await dispatcher.control.until(lambda: dispatcher.credits() == 5)
    again = await dispatch()
    assert not again.opened.held


async def test_a_result_is_told_at_the_verdict_and_the_slot_is_free_when_the_process_is_gone(dispatch, job) -> None:
    dispatcher = await dispatch()
    one = job(STAYS)
    await dispatcher.start(one)
    result = await dispatcher.result(one)
    assert (result.outcome, result.output_json, result.log_count) == (job_pb2.Result.SUCCEEDED, '"done"', 1)
    assert result.cpu_seconds < 1000
    assert result.peak_memory_kib == 2**31 - 1
    await dispatcher.confirm(one, lines=1, started=True, result=True)
    await dispatcher.ping(1)
    await dispatcher.control.next('pong')
    assert dispatcher.credits() == 4
    await dispatcher.control.until(lambda: dispatcher.credits() == 5)
    assert [line.text for line in dispatcher.lines(one)] == ['before']


async def test_pings_are_answered(dispatch) -> None:
    dispatcher = await dispatch()
    await dispatcher.ping(42)
    assert (await dispatcher.control.next('pong')).pong.nonce == 42


async def test_a_job_without_a_free_slot_is_refused_and_credits_follow_the_slots(dispatch, job) -> None:
    dispatcher = await dispatch()
    jobs = [job(SLEEPS) for _ in range(5)]
    await dispatcher.start(*jobs)
    refused = (await dispatcher.control.next('refused')).refused
    assert [(item.claim_id, item.reason) for item in refused.items] == [(jobs[4].claim_id, 'NO_SLOT')]
    assert dispatcher.credits() == 4
    await dispatcher.started(jobs[0])
    await dispatcher.drop(jobs[0])
    await dispatcher.control.until(lambda: dispatcher.credits() == 5)
    await dispatcher.drop(*jobs[1:])
    await dispatcher.control.until(lambda: dispatcher.credits() == 8)


async def test_a_job_told_twice_runs_once(dispatch, job) -> None:
    dispatcher = await dispatch()
    one = job('print("once")')
    await dispatcher.start(one, one)
    await settle(dispatcher, one)
    await dispatcher.control.until(lambda: dispatcher.credits() == 6)
    assert [line.text for line in dispatcher.lines(one)] == ['once']


async def test_input_that_is_no_object_fails_without_a_start(dispatch, job) -> None:
    dispatcher = await dispatch()
    one = job('print("never")', input_json='[1]')
    await dispatcher.start(one)
    result = await dispatcher.result(one)
    assert (result.outcome, result.error_type) == (job_pb2.Result.FAILED, 'InputInvalid')
    assert not any(item.HasField('started') for item in dispatcher.items(one))
    await settle(dispatcher, one)


async def test_a_cancelled_job_runs_its_finally_and_ends_cancelled(dispatch, job) -> None:
    dispatcher = await dispatch()
    one = job('import time\ntry:\n    print("up")\n    time.sleep(600)\nfinally:\n    print("cleaned up")\n')
    await dispatcher.start(one)
    await dispatcher.printed(one)
    await dispatcher.cancel(one)
    result = await dispatcher.result(one)
    assert result.outcome == job_pb2.Result.CANCELLED
    assert not result.error_type
    assert [line.text for line in dispatcher.lines(one)] == ['up', 'cleaned up']
    await settle(dispatcher, one)


async def test_a_job_is_asked_twice_to_stop_and_cleans_up_undisturbed(dispatch, job) -> None:
    dispatcher = await dispatch()
    cleans = job('import time\ntry:\n    print("up")\n    time.sleep(600)\nfinally:\n    time.sleep(1)\n    print("cleaned up")\n')
    source = """
import signal, time
seen = []
def main():
    signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    print("up")
    while len(seen) < 2:
        time.sleep(0.01)
    return len(seen)
"""
    counts = job(source)
    await dispatcher.start(cleans, counts)
    for one in (cleans, counts):
        await dispatcher.printed(one)
        await dispatcher.cancel(one)
    assert (await dispatcher.result(counts)).output_json == '2'
    assert (await dispatcher.result(cleans)).outcome == job_pb2.Result.CANCELLED
    assert [line.text for line in dispatcher.lines(cleans)] == ['up', 'cleaned up']
    await settle(dispatcher, cleans, counts)


async def test_a_result_in_time_counts_although_the_job_was_cancelled(dispatch, job) -> None:
    dispatcher = await dispatch()
    source = 'import time\ndef main():\n    try:\n        print("up")\n        time.sleep(600)\n    except BaseException:\n        return "done anyway"\n'
    one = job(source)
    await dispatcher.start(one)
    await dispatcher.printed(one)
    await dispatcher.cancel(one)
    result = await dispatcher.result(one)
    assert (result.outcome, result.output_json) == (job_pb2.Result.SUCCEEDED, '"done anyway"')
    await settle(dispatcher, one)


async def test_a_dropped_job_is_killed_and_forgotten(dispatch, job) -> None:
    dispatcher = await dispatch()
    one = job('import time\ntry:\n    print("up")\n    time.sleep(600)\nfinally:\n    print("never seen")\n    time.sleep(600)\n')
    await dispatcher.start(one)
    await dispatcher.printed(one)
    await dispatcher.drop(one)
    await dispatcher.control.until(lambda: dispatcher.credits() == 5)  # its process has ended
    assert [line.text for line in dispatcher.lines(one)] == ['up']
    assert not (await dispatch()).opened.held


async def test_exactly_the_unconfirmed_is_sent_again_to_a_higher_epoch(dispatch, job, sha256) -> None:
    first = await dispatch()
    ended, running = job('for n in range(5):\n    print(n)\n'), job('print("a")\nprint("b")\nimport time\ntime.sleep(600)\n')
    await first.start(ended, running)
    result = await first.result(ended)
    await first.printed(running, 2)
    await first.confirm(ended, lines=3, started=True)
    await first.confirm(running, lines=1)
    await first.ping(1)  # not on the same stream: the confirmations are known to have arrived by what is held
    await first.control.next('pong')
    second = await dispatch(name='dsp_b')
    held = {item.claim_id: item for item in second.opened.held}
    assert held.keys() == {ended.claim_id, running.claim_id}
    assert held[ended.claim_id].confirmed_lines == 3
    assert held[running.claim_id].confirmed_lines == 1
    await second.control.until(lambda: second.credits() == 3)
    assert await second.result(ended) == result
    assert [line.seq for line in second.lines(ended)] == [3, 4]
    assert not any(item.HasField('started') for item in second.items(ended))
    assert sha256([*first.lines(ended)[:3], *second.lines(ended)]) == result.log_sha256
    await second.printed(running)
    assert [(line.seq, line.text) for line in second.lines(running)] == [(1, 'b')]
    assert any(item.HasField('started') for item in second.items(running))
    assert await first.control.code() == grpc.StatusCode.ABORTED
    assert await first.output.code() == grpc.StatusCode.ABORTED
    await settle(second, ended)
    await second.drop(running)
    third = await dispatch(name='dsp_c')
    assert not third.opened.held


async def test_a_new_stream_of_the_same_epoch_takes_the_place_of_the_old_one(dispatch, job) -> None:
    dispatcher = await dispatch()
    one = job('print("a")\nprint("b")\n')
    await dispatcher.start(one)
    await dispatcher.result(one)
    earlier = dispatcher.output
    dispatcher.output = await dispatcher.open('OUTPUT')
    await dispatcher.result(one)
    assert [line.seq for line in dispatcher.lines(one)] == [0, 1]
    assert await earlier.code() == grpc.StatusCode.ABORTED
    await dispatcher.ping(1)
    await dispatcher.control.next('pong')
    await settle(dispatcher, one)


@pytest.mark.parametrize(('epoch', 'name'), [(-1, 'dsp_a'), (0, 'dsp_other')])
async def test_an_older_epoch_and_another_dispatcher_of_the_same_one_are_refused(dispatch, details, runner, epoch, name) -> None:
    owner = await dispatch()
    stale = type(owner)(runner, owner.epoch + epoch, name)
    stream = await stale.open('CONTROL')
    assert await stream.code() == grpc.StatusCode.ABORTED
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stream.call.read()
    assert details(refusal.value)['ErrorInfo'].reason == 'CONFLICT'
    await stale.close()
    await owner.ping(1)
    await owner.control.next('pong')


async def test_a_session_with_a_server_that_was_here_before_is_refused_whatever_its_epoch(dispatch, details, runner) -> None:
    owner = await dispatch()
    confused = type(owner)(runner, owner.epoch + 10, 'dsp_other')
    stream = await confused.open('CONTROL', server_id='srv_00000000000000000000000000')
    assert await stream.code() == grpc.StatusCode.ABORTED
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stream.call.read()
    assert details(refusal.value)['ErrorInfo'].reason == 'CONFLICT'
    await confused.close()
    await owner.ping(1)
    await owner.control.next('pong')


async def test_a_stream_that_does_not_begin_with_open_is_refused(stub, bearer) -> None:
    call = stub.Session(metadata=bearer)
    await call.write(session_pb2.SessionRequest(ping=session_pb2.Ping(nonce=1)))
    assert await call.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_messages_of_the_other_channel_are_refused(dispatch, job) -> None:
    dispatcher = await dispatch()
    await dispatcher.output.call.write(session_pb2.SessionRequest(ping=session_pb2.Ping(nonce=1)))
    assert await dispatcher.output.code() == grpc.StatusCode.INVALID_ARGUMENT
    item = session_pb2.ConfirmOutput.Item(claim_id=b'x' * 16)
    await dispatcher.control.call.write(session_pb2.SessionRequest(confirm=session_pb2.ConfirmOutput(items=[item])))
    assert await dispatcher.control.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_script_blocks_when_nothing_is_confirmed_and_goes_on_when_it_is(dispatch, job, runner, sha256) -> None:
    dispatcher = await dispatch()
    one, other = job(FLOOD), job('print("neighbour")')
    before = runner.resident_kib()
    await dispatcher.start(one)
    await dispatcher.output.until(lambda: sum(len(line.text) for line in dispatcher.lines(one)) > 200_000)
    await dispatcher.start(other)  # a neighbour is not held up
    await settle(dispatcher, other)
    # the window of what is sent is smaller than what is kept, and neither grows
    sent = sum(len(line.text) + 1 for line in dispatcher.lines(one))
    assert sent <= 300_000
    assert await kept_bytes_settle(runner) <= 1_300_000
    assert runner.resident_kib() - before < 40_000
    assert not dispatcher.output.told(one).result
    confirmed = 0

    def has_news() -> object:
        return len(dispatcher.lines(one)) > confirmed or dispatcher.output.told(one).result

    while not dispatcher.output.told(one).result:
        await dispatcher.output.until(has_news)
        confirmed = len(dispatcher.lines(one))
        await dispatcher.confirm(one, lines=confirmed, started=True)
    result = await dispatcher.result(one)
    lines = dispatcher.lines(one)
    assert [line.seq for line in lines] == list(range(len(lines)))
    assert (result.log_count, result.log_sha256) == (len(lines), sha256(lines))
    # 20 MB were printed: 10 MiB are kept, the mark says so, the rest is counted
    assert lines[-1].stream == job_pb2.Line.SYSTEM
    assert 'cut' in lines[-1].text
    assert sum(len(line.text) + 1 for line in lines[:-1]) <= 10 * 1024 * 1024
    assert result.dropped_bytes == 20_000 * 1024 - (len(lines) - 1) * 1024
    assert runner.resident_kib() - before < 40_000
    await settle(dispatcher, one)


async def test_a_script_that_fills_enlarged_pipes_with_empty_lines_costs_little(dispatch, job, runner) -> None:
    source = """
import fcntl, os
fcntl.fcntl(1, 1031, 1 << 20)  # F_SETPIPE_SZ
os.set_blocking(1, False)
while True:
    try:
        os.write(1, b'\\n' * 65536)
    except BlockingIOError:
        pass
"""
    dispatcher = await dispatch()
    one = job(source, grace=Duration(), start_to_close=Duration(seconds=1))
    await dispatcher.start(one)
    await dispatcher.control.until(lambda: dispatcher.credits() == 5)  # it was killed, and nothing was confirmed
    assert await kept_bytes_settle(runner) < 15_000_000
    await dispatcher.confirm(one, lines=2**31 - 1, started=True)
    result = await dispatcher.result(one)
    assert result.outcome == job_pb2.Result.TIMED_OUT
    assert result.dropped_bytes > 500_000
    await settle(dispatcher, one)


async def kept_bytes_settle(runner, least: int = 0) -> float:
    """What the server keeps, once it has stopped growing, not below `least`: scripts may stand still on a busy machine."""

    def read() -> float:
        text = runner.get('/metrics')[1]
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith('millrace_runner_unconfirmed_output_bytes ')))

    last, same = -1.0, 0
    while same < 3:
        now = await asyncio.to_thread(read)
        same = same + 1 if now == last and now >= least else 0
        last = now
    return last


async def test_output_that_nobody_reads_does_not_delay_control(dispatch, job) -> None:
    dispatcher = await dispatch()
    dispatcher.output.reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await dispatcher.output.reader
    dispatcher.output = await dispatcher.open('OUTPUT', reads=False)
    jobs = [job(FLOOD) for _ in range(3)]
    await dispatcher.start(*jobs)
    for nonce in range(1, 20):
        await dispatcher.ping(nonce)
        await dispatcher.control.next('pong', nonce)
    await dispatcher.drop(*jobs)
    await dispatcher.control.until(lambda: dispatcher.credits() == 7)


async def test_jobs_take_turns_on_the_output_stream(dispatch, job, runner) -> None:
    dispatcher = await dispatch()
    jobs = [job(FLOOD), job(FLOOD)]
    await dispatcher.start(*jobs)
    for one in jobs:
        await dispatcher.printed(one)
    await kept_bytes_settle(runner, 2 << 20)  # both have more to tell than may be sent at once
    dispatcher.output = await dispatcher.open('OUTPUT')
    sent = await dispatcher.output.until(lambda: sizes if len(sizes := spoken(dispatcher)) >= 8 else None)
    claims = [claim for claim, _ in sent[:8]]
    assert claims[:2] in ([one.claim_id for one in jobs], [one.claim_id for one in reversed(jobs)])
    assert claims == claims[:2] * 4
    assert max(size for _, size in sent) <= 66 * 1024
    small = job('for n in range(100):\n    print(n)\n')
    await dispatcher.start(small)
    await settle(dispatcher, small)
    assert [line.text for line in dispatcher.lines(small)] == [str(n) for n in range(100)]
    await dispatcher.drop(*jobs)


def spoken(dispatcher) -> list[tuple[bytes, int]]:
    """Whose lines came on the present stream, turn by turn, and how many bytes of them."""
    frames = [answer.output.items for answer in dispatcher.output.answers if answer.WhichOneof('message') == 'output']
    return [(item.claim_id, sum(len(line.text) for line in item.lines)) for items in frames for item in items if item.lines]
