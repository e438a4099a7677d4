"""Temporal: a workflow with one activity for each no-op, one workflow for a sequence. `python temporal_peer.py` is the worker."""

import asyncio
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from fibo import timed

QUEUE = 'peer'
IN_FLIGHT = 64
ACTIVITIES = 100
LONGEST = timedelta(seconds=120)


@activity.defn
def noop() -> None:
    return None


@activity.defn
def step(n: int) -> float:
    return timed(n)


@workflow.defn
class Once:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(noop, start_to_close_timeout=LONGEST)


@workflow.defn
class Sequence:
    @workflow.run
    async def run(self, count: int, n: int) -> list[float]:
        return [await workflow.execute_activity(step, n, start_to_close_timeout=LONGEST) for _ in range(count)]


async def connect() -> Client:
    return await Client.connect(f'127.0.0.1:{os.environ["TEMPORAL_PORT"]}')


async def serve() -> None:
    with ThreadPoolExecutor(ACTIVITIES) as pool:
        await Worker(
            await connect(),
            task_queue=QUEUE,
            workflows=[Once, Sequence],
            activities=[noop, step],
            activity_executor=pool,
            max_concurrent_activities=ACTIVITIES,
        ).run()


if __name__ == '__main__':
    asyncio.run(serve())
    raise SystemExit

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
