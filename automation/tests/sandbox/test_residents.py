"""How many processes wait for another run, and for how long."""

import asyncio
import json
import os
import select
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from millrace_automation.sandbox import Limits, Process, Returned, Reuse, Sandbox, SandboxSettings
from millrace_automation.sandbox.nursery import Child
from millrace_automation.sandbox.resident import Resident
from millrace_automation.sandbox.residents import Key, Residents

PATIENCE = 20.0
COUNTS = 'import time\nn = 0\ndef main(seconds=0, text=""):\n    global n\n    n += 1\n    time.sleep(seconds)\n    return n\n'


class House:
    """Processes that are kept apart from those of other tests, in the same sandbox."""

    def __init__(self, sandbox: Sandbox, residents: Residents):
        self.sandbox = sandbox
        self.residents = residents
        self.ends: list[str] = []
        residents.on_end = self.ends.append

    async def run(self, owner: str = 'one', **given: Any) -> int:
        async with asyncio.timeout(PATIENCE):
            return await output(await self.residents.launch(Key(owner, COUNTS, 'base', Limits()), json.dumps(given), ''))

    async def until(self, is_reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_reached():
                await asyncio.sleep(0.01)


@pytest.fixture
async def build(keeping: Sandbox) -> AsyncIterator[Callable[..., House]]:
    built: list[Residents] = []

    def build(**reuse: Any) -> House:
        built.append(Residents(Reuse(**reuse), keeping._spawn))
        return House(keeping, built[-1])

    yield build
    for one in built:
        one.stop()


async def test_after_so_many_runs_a_process_has_served(build) -> None:
    house = build(parked=2, runs=3)
    assert [await house.run() for _ in range(5)] == [1, 2, 3, 1, 2]
    assert house.ends == ['runs']


async def test_an_old_process_is_not_used_again(build) -> None:
    house = build(parked=2, age_seconds=0)
    assert [await house.run(), await house.run()] == [1, 1]
    assert house.ends == ['age', 'age']


async def test_idle_and_old_ones_end_by_themselves(build) -> None:
    for limit in ('idle', 'age'):
        house = build(parked=2, **{f'{limit}_seconds': 1.5})
        await house.run()
        assert house.residents.parked == 1
        await house.until(lambda house=house: house.residents.parked == 0)
        assert house.ends == [limit]


async def test_the_longest_idle_goes_when_there_are_too_many(build) -> None:
    house = build(parked=2)
    for owner in ('a', 'b', 'a', 'c'):
        await house.run(owner)
    assert house.ends == ['room']
    assert [await house.run(owner) for owner in ('c', 'a')] == [2, 3]
    assert await house.run('b') == 1


async def test_none_waits_while_memory_is_short(build) -> None:
    house = build(parked=2, reserve_mib=1 << 30)
    await house.run('a')
    await house.run('b')
    await house.until(lambda: house.residents.parked == 0)
    assert house.ends == ['memory', 'memory']


async def armed(house: House) -> Resident:
    """The one that waits, once it has the ends of its next run."""
    resident = next(iter(house.residents._waiting))
    await house.until(lambda: resident._ends is not None)
    return resident


@pytest.mark.parametrize('is_armed', [False, True])
@pytest.mark.parametrize('size', [0, 900_000])
async def test_one_that_died_while_it_waited_is_replaced(build, size, is_armed) -> None:
    house = build(parked=2)
    await house.run()
    resident = await armed(house) if is_armed else next(iter(house.residents._waiting))
    resident._child.kill()
    assert select.select([resident._line], [], [], PATIENCE)[0]  # it is dead; the server, which has no turn here, does not know yet
    assert await house.run(text='x' * size) == 1
    await house.until(lambda: bool(house.ends))


async def test_the_ends_of_the_next_run_are_there_before_it(build) -> None:
    house = build(parked=2)
    await house.run()
    resident = await armed(house)
    ends = resident._ends
    process = await house.residents.launch(Key('one', COUNTS, 'base', Limits()), '{}', '')
    assert (process._channel, process._pipes[0].descriptor) == (ends.channel, ends.output)
    assert await output(process) == 2
    assert (await armed(house))._ends is not ends


async def test_the_ends_of_a_run_that_never_came_are_closed(build) -> None:
    house = build(parked=2)
    await house.run()
    (await armed(house)).end('test')
    await house.run()
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        (await armed(house)).end('test')
        await house.run()
    assert len(os.listdir('/proc/self/fd')) < before + 10  # five times three would be left


class Births:
    """Makes processes when it is allowed to, and counts those that have a request."""

    def __init__(self, sandbox: Sandbox, commits_at_once: bool = False):
        self.are_allowed = asyncio.Event()
        self.count = 0
        self.stands_still_seconds = 0.0
        self._sandbox = sandbox
        self._commits_at_once = commits_at_once

    async def __call__(self, *arguments: Any) -> Child:
        *arguments, commit = arguments
        if self._commits_at_once:
            commit()  # once more when that one ended while it waited
        await self.are_allowed.wait()
        child = await self._sandbox._spawn(*arguments, commit)
        self.count += 1
        self._stand_still()
        return child

    def _stand_still(self) -> None:
        """As on a busy machine: meanwhile the run is over."""
        time.sleep(self.stands_still_seconds)


async def begun(residents: Residents) -> Process:
    """A run that has begun and ends when its events are read."""
    return await residents.launch(Key('one', COUNTS, 'base', Limits()), '{}', '')


async def output(process: Process) -> int:
    return next(json.loads(event.output_json) for event in [e async for e in process.events()] if isinstance(event, Returned))


@pytest.mark.parametrize('commits_at_once', [False, True], ids=['no process yet', 'one that is about to have the request'])
async def test_a_run_without_a_process_takes_one_that_becomes_free(keeping, commits_at_once) -> None:
    births = Births(keeping, commits_at_once)
    residents = Residents(Reuse(2), births)
    async with asyncio.timeout(PATIENCE):
        births.are_allowed.set()
        first = await begun(residents)
        births.are_allowed.clear()
        second = asyncio.create_task(begun(residents))
        await asyncio.sleep(0.02)
        assert await output(first) == 1
        if commits_at_once:
            await asyncio.sleep(0.02)
            assert (second.done(), residents.parked) == (False, 1)
        else:
            assert await output(await second) == 2  # nothing was made for it
        births.are_allowed.set()
        if commits_at_once:
            assert await output(await second) == 1
    assert (births.count, residents.parked) == ((2, 2) if commits_at_once else (1, 1))
    assert not residents._hopes
    residents.stop()


async def test_a_first_run_that_is_over_before_anybody_looks_is_noticed(keeping) -> None:
    births = Births(keeping)
    births.are_allowed.set()
    births.stands_still_seconds = 0.3
    residents = Residents(Reuse(2), births)
    async with asyncio.timeout(PATIENCE):
        assert await output(await begun(residents)) == 1
    assert residents.parked == 1
    residents.stop()


async def test_a_run_that_is_given_up_while_it_waits_for_a_process_keeps_none(keeping) -> None:
    births = Births(keeping)
    residents = Residents(Reuse(2), births)
    async with asyncio.timeout(PATIENCE):
        births.are_allowed.set()
        first = await begun(residents)
        births.are_allowed.clear()
        waiting = [asyncio.create_task(begun(residents)) for _ in range(2)]
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        assert await output(first) == 1
        waiting[1].cancel()  # it was given the process just now
        assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [asyncio.CancelledError] * 2
        assert (births.count, residents.parked, residents._hopes) == (1, 1, {})
        assert await output(await begun(residents)) == 2
    residents.stop()


async def test_a_run_that_is_given_up_just_as_its_process_begins_leaves_none(keeping) -> None:
    ends: list[str] = []
    children: list[Child] = []

    async def spawn(*arguments: Any) -> Child:
        children.append(await keeping._spawn(*arguments))
        run.cancel()
        return children[0]

    residents = Residents(Reuse(2), spawn)
    residents.on_end = ends.append
    run = asyncio.create_task(begun(residents))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(asyncio.CancelledError):
            await run
        await children[0].exit
    assert (ends, residents.parked, residents._hopes) == (['broken'], 0, {})


async def test_a_process_that_is_not_needed_any_longer_never_has_the_request(keeping) -> None:
    source, said = 'def main():\n    return 1\n', []

    def commit() -> None:
        said.append('there is one')
        raise asyncio.CancelledError

    request = {'mode': 'run', 'source': source, 'input': '{}', 'traceparent': ''}
    with pytest.raises(asyncio.CancelledError):
        await keeping._spawn('base', Limits(), request, [], None, commit)
    assert said == ['there is one']


async def test_those_that_wait_take_no_place_and_end_with_their_parent_and_with_the_sandbox(keeping) -> None:
    settings = SandboxSettings(1, Path('/nonexistent'), slots=2, prepared=2, reuse=Reuse(4), force_tier_at_most=keeping.tier)
    sandbox = await Sandbox.start(settings)
    house = House(sandbox, sandbox.residents)
    for owner in 'abcd':
        await house.run(owner)
    assert house.residents.parked == 4
    # as many more run, beyond the slots, and those that wait are still there
    assert await asyncio.gather(*(house.run(f'{owner}{owner}', seconds=0.2) for owner in 'abcd')) == [1] * 4
    assert house.ends == ['room'] * 4

    retired = sandbox._nurseries['base']
    retired.retire()
    await house.until(lambda: house.residents.parked == 0)
    assert house.ends[4:] == ['retired'] * 4

    await house.until(lambda: sandbox._nurseries['base'] is not retired)
    await house.run()
    killed = sandbox._nurseries['base']
    killed._process.kill()
    await house.until(lambda: len(house.ends) == 9 and sandbox._nurseries['base'] is not killed)

    assert await house.run() == 1
    resident = next(iter(house.residents._waiting))
    await sandbox.stop()
    assert resident._child.exit.done()
    assert house.ends[9:] == ['stop']
    assert house.residents.parked == 0
