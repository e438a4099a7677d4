"""Temporal: the client of what temporal_worker.py runs."""

import asyncio
import time
import uuid

from temporal_worker import QUEUE, Once, Sequence, connect

IN_FLIGHT = 64

loop = asyncio.new_event_loop()
client = loop.run_until_complete(connect())


def named() -> dict[str, str]:
    return {'id': uuid.uuid4().hex, 'task_queue': QUEUE}


def burst(count: int) -> tuple[float, float]:
    async def all_of_them() -> tuple[float, float]:
        turns = asyncio.Semaphore(IN_FLIGHT)

        async def start():
            async with turns:
                return await client.start_workflow(Once.run, **named())

        begin = time.perf_counter()
        started = await asyncio.gather(*(start() for _ in range(count)))
        accepted = time.perf_counter() - begin
        await asyncio.gather(*(one.result() for one in started))
        return accepted, time.perf_counter() - begin

    return loop.run_until_complete(all_of_them())


def once() -> None:
    loop.run_until_complete(client.execute_workflow(Once.run, **named()))


def sequence(count: int, n: int) -> list[float]:
    return loop.run_until_complete(client.execute_workflow(Sequence.run, args=[count, n], **named()))
