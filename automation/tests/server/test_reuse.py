"""Jobs that share a process: who does, what the server says of it, and how they are stopped."""

import asyncio
import re

import pytest
from google.protobuf.duration_pb2 import Duration
from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import job_pb2

FRESH, REUSED = spec_pb2.AutomationSpec.FRESH, spec_pb2.AutomationSpec.REUSED
COUNTS = 'import time\nn = 0\ndef main(wait=0):\n    global n\n    n += 1\n    print("run", n)\n    time.sleep(wait)\n    return n\n'
SHARED = {'isolation': REUSED, 'reuse_key': 'revision', 'principal': 'usr_a'}


@pytest.fixture
def outputs(dispatch, job):
    """Runs jobs one after the other: how its process came to be, and the result, of each."""

    async def outputs(*jobs) -> list[tuple[int, job_pb2.Result]]:
        dispatcher = await dispatch()
        found = []
        for one in jobs:
            await dispatcher.start(one)
            result = await dispatcher.result(one)
            (started,) = [item.started for item in dispatcher.items(one) if item.HasField('started')]
            found.append((started.isolation, result))
            await dispatcher.confirm(one, lines=2**31 - 1, started=True, result=True)
        return found

    return outputs


async def test_jobs_of_one_key_share_a_process_one_after_the_other(outputs, job, runner) -> None:
    source = COUNTS + '# shared\n'
    found = await outputs(*(job(source, **SHARED) for _ in range(3)))
    assert [(isolation, result.output_json) for isolation, result in found] == [(REUSED, '1'), (REUSED, '2'), (REUSED, '3')]
    assert all(result.log_count == 1 for _, result in found)
    metrics = dict(re.findall(r'^(\S+) (\S+)$', runner.get('/metrics')[1], re.MULTILINE))
    assert float(metrics['millrace_runner_starts_total{process="reused"}']) >= 2
    assert float(metrics['millrace_runner_parked_processes']) >= 1


@pytest.mark.parametrize(
    'other',
    [
        {'isolation': FRESH},
        {'isolation': spec_pb2.AutomationSpec.ISOLATION_UNSPECIFIED},
        {'principal': ''},
        {'reuse_key': ''},
    ],
    ids=['fresh', 'unspecified', 'nobody', 'by hand'],
)
async def test_jobs_that_do_not_ask_for_it_run_alone(outputs, job, other) -> None:
    found = await outputs(*(job(COUNTS, **SHARED | other) for _ in range(2)))
    assert [(isolation, result.output_json) for isolation, result in found] == [(FRESH, '1'), (FRESH, '1')]


@pytest.mark.parametrize(
    'other',
    [{'principal': 'usr_b'}, {'reuse_key': 'another'}, {'resources': spec_pb2.Resources(memory_mib=300)}],
    ids=['another caller', 'another revision or workspace', 'other limits'],
)
async def test_nobody_else_gets_the_process(outputs, job, other) -> None:
    source = COUNTS + f'# {list(other)}\n'
    found = await outputs(job(source, **SHARED), job(source, **SHARED | other), job(source, **SHARED))
    assert [result.output_json for _, result in found] == ['1', '1', '2']


async def test_a_plain_script_is_fresh_whatever_was_asked_for(outputs, job) -> None:
    ((isolation, result),) = await outputs(job('print("plain")', **SHARED))
    assert (isolation, result.outcome) == (FRESH, job_pb2.Result.SUCCEEDED)


async def test_a_long_run_says_early_how_its_process_came_to_be(dispatch, job) -> None:
    dispatcher = await dispatch()
    for source, expected in ((COUNTS, REUSED), ('import time\ntime.sleep(60)', FRESH)):
        one = job(source.replace('print("run", n)', ''), input_json='{"wait": 60}', **SHARED)
        await dispatcher.start(one)
        await dispatcher.started(one)
        (item,) = dispatcher.items(one)
        assert item.started.isolation == expected
        await dispatcher.drop(one)
    await dispatcher.control.until(lambda: dispatcher.credits() == 6)


async def test_a_cancelled_job_ends_with_its_process(dispatch, outputs, job, runner) -> None:
    source = COUNTS + '# cancelled\n'
    await outputs(job(source, **SHARED))
    dispatcher = await dispatch()
    one = job(source, input_json='{"wait": 60}', **SHARED)
    await dispatcher.start(one)
    await dispatcher.printed(one)
    await dispatcher.cancel(one)
    assert (await dispatcher.result(one)).outcome == job_pb2.Result.CANCELLED
    await dispatcher.confirm(one, lines=1, started=True, result=True)
    ((_, result),) = await outputs(job(source, **SHARED))
    assert result.output_json == '1'
    assert 'millrace_runner_kept_process_ends_total{reason="stopped"}' in runner.get('/metrics')[1]


@pytest.mark.parametrize('stubborn', ['', 'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'])
async def test_each_job_has_its_own_time(outputs, job, stubborn) -> None:
    source = f'{stubborn}{COUNTS}# time\n'
    limits = {'start_to_close': Duration(seconds=1), 'grace': Duration(nanos=200_000_000)}
    runs = [job(source, input_json=f'{{"wait": {wait}}}', **SHARED, **limits) for wait in (0.6, 0.6, 60, 0)]
    found = await outputs(*runs)
    assert [result.output_json for _, result in found] == ['1', '2', '', '1']
    assert (found[2][1].outcome, found[2][1].error_type) == (job_pb2.Result.TIMED_OUT, 'StartToCloseTimeout')


async def test_a_server_that_stops_leaves_no_process(start_runner, dispatch, job) -> None:
    server = start_runner(automation_slots=1)
    dispatcher = await dispatch(server)
    one = job(COUNTS, **SHARED)
    await dispatcher.start(one)
    await dispatcher.result(one)
    await dispatcher.confirm(one, lines=1, started=True, result=True)
    server.process.terminate()
    assert await asyncio.to_thread(server.wait) == 0
