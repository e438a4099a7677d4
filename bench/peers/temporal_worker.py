"""Temporal's worker: a workflow with one activity for each no-op, one workflow for a sequence."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from fibo import timed

QUEUE = 'peer'
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
