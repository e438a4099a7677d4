"""Jobs that are taken before there is a slot for them."""

import asyncio

import pytest
from millrace.runner.v1 import job_pb2

from millrace_automation.server import turns
from millrace_automation.server.turns import NoTurn, Turns

PATIENCE = 60.0
NOTHING = 'def main():\n    return None\n'
SLEEPS = 'import time\ndef main():\n    time.sleep(60)\n'


async def run(of: Turns, times: int) -> None:
    for _ in range(times):
        await of.take()
        of.give()


async def test_no_more_run_than_there_are_slots_and_the_next_follows_in_order() -> None:
    of = Turns(2)
    begun: list[int] = []

    async def one(number: int) -> None:
        await of.take()
        begun.append(number)

    waiting = [asyncio.create_task(one(number)) for number in range(4)]
    await asyncio.sleep(0.01)
    assert (begun, of.running) == ([0, 1], 2)
    of.give()
    await waiting[2]
    assert (begun, of.running) == ([0, 1, 2], 2)
    of.give()
    await waiting[3]
    assert begun == [0, 1, 2, 3]


async def test_a_job_that_finds_no_slot_in_time_is_given_back_and_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, '_WAIT_SECONDS', 0.02)
    of = Turns(1)
    await of.take()
    with pytest.raises(NoTurn):
        await of.take()
    assert of.running == 1
    of.give()
    await of.take()
    assert of.running == 1


@pytest.mark.parametrize('is_given', [False, True], ids=['while it waits', 'when it is given one'])
async def test_whoever_is_cancelled_takes_no_turn(is_given) -> None:
    of = Turns(1)
    await of.take()
    waiting = [asyncio.create_task(of.take()) for _ in range(2)]
    await asyncio.sleep(0.01)
    if is_given:
        of.give()
        waiting[0].cancel()
    else:
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        of.give()
    await waiting[1]
    assert of.running == 1
    assert waiting[0].cancelled()


async def test_whoever_is_cancelled_as_it_is_given_back_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, '_WAIT_SECONDS', 0.0)
    of = Turns(1)
    await of.take()
    waiting = asyncio.create_task(of.take())
    await asyncio.sleep(0.01)
    of._look()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert of.running == 1


async def test_jobs_are_taken_ahead_only_while_all_slots_change_hands_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, '_TURNOVER_SECONDS', 60.0)
    of = Turns(3)
    await run(of, 11)
    assert (of.ahead, of.most) == (0, 3)
    await run(of, 1)  # four times for each slot
    assert (of.ahead, of.most) == (6, 3)  # nobody knows
    of.offer()
    assert (of.ahead, of.most) == (6, 9)
    monkeypatch.setattr(turns, '_TURNOVER_SECONDS', 0.0)
    assert of.ahead == 0
    of.offer()
    assert of.most == 9  # what was offered may still be on its way
    monkeypatch.setattr(of, '_offered_until', 0.0)
    assert of.most == 3


async def test_of_short_jobs_few_run_at_once_until_none_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, '_TURNOVER_SECONDS', 60.0)
    monkeypatch.setattr(turns, '_STILL_SECONDS', 60.0)
    monkeypatch.setattr(turns, '_FEW', 2)
    of = Turns(4)
    await run(of, 16)
    waiting = [asyncio.create_task(of.take()) for _ in range(6)]
    await asyncio.sleep(0.01)
    assert (of.running, [one.done() for one in waiting]) == (2, [True, True, False, False, False, False])
    of.give()
    await waiting[2]
    assert of.running == 2
    monkeypatch.setattr(turns, '_STILL_SECONDS', 0.01)
    of._timer.cancel()  # of the look that was to come in a minute
    of._look()
    await asyncio.gather(*waiting[3:5])
    assert (of.running, waiting[5].done()) == (4, False)
    of.give()
    await waiting[5]


async def test_short_jobs_bring_credits_ahead_and_what_waits_too_long_is_given_back(start_runner, dispatch, job) -> None:
    dispatcher = await dispatch(start_runner(MILLRACE_AUTOMATION_SLOTS='2'))
    sent = 0
    async with asyncio.timeout(PATIENCE):
        while (credits := dispatcher.credits() - sent) <= 2:  # a busy machine may need a few rounds until they are fast enough
            short = [job(NOTHING) for _ in range(credits)]
            await dispatcher.start(*short)
            sent += len(short)
            for one in short:
                assert (await dispatcher.result(one)).outcome == job_pb2.Result.SUCCEEDED
                await dispatcher.confirm(one, started=True, result=True)
    assert credits <= 6
    long = [job(SLEEPS) for _ in range(credits)]
    await dispatcher.start(*long)
    await dispatcher.control.until(lambda: len(refused_of(dispatcher)) == credits - 2)
    assert refused_of(dispatcher) == [(one.claim_id, 'NO_SLOT') for one in long[2:]]
    for one in long[:2]:
        await dispatcher.started(one)
    await dispatcher.drop(*long[:2])


def refused_of(dispatcher) -> list[tuple[bytes, str]]:
    return [(item.claim_id, item.reason) for answer in dispatcher.control.answers for item in answer.refused.items]
