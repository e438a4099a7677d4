"""RQ: a queue in Redis."""

import os

import redis
import rq_tasks
from rq import Queue

SUBMITTERS = 8
WAIT = 120

queue = Queue('peer', connection=redis.Redis(port=int(os.environ['REDIS_PORT'])))


def submit() -> None:
    queue.enqueue(rq_tasks.noop)


def finished() -> int:
    return queue.finished_job_registry.get_job_count(cleanup=False)


def once() -> None:
    queue.enqueue(rq_tasks.noop).latest_result(timeout=WAIT)


def sequence(count: int, n: int) -> list[float]:
    jobs = []
    for _ in range(count):
        jobs.append(queue.enqueue(rq_tasks.step, n, depends_on=jobs[-1] if jobs else None))
    jobs[-1].latest_result(timeout=WAIT)
    return [job.return_value() for job in jobs]
