"""How many processes wait for another run, and for how long."""

import asyncio
import json
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from millrace_automation.sandbox import Limits, Returned, Reuse, Sandbox, SandboxSettings

PATIENCE = 20.0
COUNTS = 'import time\nn = 0\ndef main(seconds=0, text=""):\n    global n\n    n += 1\n    time.sleep(seconds)\n    return n\n'


class House:
    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.ends: list[str] = []
        sandbox.residents.on_end = self.ends.append

    async def run(self, reuse: str = 'one', **given: Any) -> int:
        async with asyncio.timeout(PATIENCE):
            process = await self.sandbox.launch(COUNTS, json.dumps(given), Limits(), reuse=reuse)
            return next(json.loads(event.output_json) for event in [e async for e in process.events()] if isinstance(event, Returned))

    async def until(self, is_reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_reached():
                await asyncio.sleep(0.01)


@pytest.fixture
async def build(sandbox: Sandbox) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    built: list[Sandbox] = []

    async def build(**reuse: Any) -> House:
        settings = SandboxSettings(1, Path('/nonexistent'), slots=2, prepared=2, reuse=Reuse(**reuse), force_tier_at_most=sandbox.tier)
        built.append(await Sandbox.start(settings))
        return House(built[-1])

    yield build
    for one in built:
        await one.stop()


async def test_after_so_many_runs_a_process_has_served(build) -> None:
    house = await build(parked=2, runs=3)
    assert [await house.run() for _ in range(5)] == [1, 2, 3, 1, 2]
    assert house.ends == ['runs']


async def test_an_old_process_is_not_used_again(build) -> None:
    house = await build(parked=2, age_seconds=0)
    assert [await house.run(), await house.run()] == [1, 1]
    assert house.ends == ['age', 'age']


async def test_idle_and_old_ones_end_by_themselves(build) -> None:
    for limit in ('idle', 'age'):
        house = await build(parked=2, **{f'{limit}_seconds': 1.5})
        await house.run()
        assert house.sandbox.residents.parked == 1
        await house.until(lambda house=house: house.sandbox.residents.parked == 0)
        assert house.ends == [limit]


async def test_the_longest_idle_goes_when_there_are_too_many(build) -> None:
    house = await build(parked=2)
    for owner in ('a', 'b', 'a', 'c'):
        await house.run(owner)
    assert house.ends == ['room']
    assert [await house.run(owner) for owner in ('c', 'a')] == [2, 3]
    assert await house.run('b') == 1


async def test_none_waits_while_memory_is_short(build) -> None:
    house = await build(parked=2, reserve_mib=1 << 30)
    await house.run('a')
    await house.run('b')
    await house.until(lambda: house.sandbox.residents.parked == 0)
    assert house.ends == ['memory', 'memory']


async def test_none_is_kept_when_none_may_wait(build) -> None:
    house = await build(parked=0)
    assert [await house.run(), await house.run()] == [1, 1]


async def test_those_that_wait_take_no_place_from_those_that_run(build) -> None:
    house = await build(parked=4)
    for owner in 'abcd':
        await house.run(owner)
    assert house.sandbox.residents.parked == 4
    assert await asyncio.gather(*(house.run('', seconds=0.2) for _ in range(8))) == [1] * 8
    assert await asyncio.gather(*(house.run(owner, seconds=0.1) for owner in 'abcd')) == [2] * 4


async def test_a_parent_that_retires_does_not_wait_for_those_that_idle(build) -> None:
    house = await build(parked=2)
    await house.run()
    next(iter(house.sandbox._nurseries.values())).retire()
    await house.until(lambda: bool(house.ends))
    assert house.ends == ['retired']


@pytest.mark.parametrize('size', [0, 900_000])
async def test_one_that_died_while_it_waited_is_replaced(build, size) -> None:
    house = await build(parked=2)
    await house.run()
    resident = next(iter(house.sandbox.residents._waiting))
    resident._child.kill()
    assert select.select([resident._line], [], [], PATIENCE)[0]  # it is dead; the server, which has no turn here, does not know yet
    assert await house.run(text='x' * size) == 1
    await house.until(lambda: bool(house.ends))


async def test_all_end_with_their_parent_and_with_the_sandbox(build, commands) -> None:
    house = await build(parked=2)
    await house.run()
    nursery = next(iter(house.sandbox._nurseries.values()))
    nursery._process.kill()
    await house.until(lambda: bool(house.ends))
    assert await house.run() == 1
    resident = next(iter(house.sandbox.residents._waiting))
    await house.sandbox.stop()
    assert resident._child.exit.done()
    assert house.ends[-1] == 'stop'
    assert house.sandbox.residents.parked == 0
