"""Celery: broker and results in Redis."""

import os

import redis
from celery import Celery, chain
from fibo import timed

URL = f'redis://127.0.0.1:{os.environ["REDIS_PORT"]}'
DURABLE = os.environ['DURABLE'] == '1'
SUBMITTERS = 8 if DURABLE else 1  # more than one wait for the disk together; without a disk they only take turns
WAIT = 120

app = Celery('peer', broker=f'{URL}/0', backend=f'{URL}/1')
if DURABLE:
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)
results = redis.Redis.from_url(f'{URL}/1')


@app.task
def noop() -> None:
    return None


@app.task
def step(n: int) -> float:
    return timed(n)


def submit() -> None:
    noop.delay()


def finished() -> int:
    return results.dbsize()


def once() -> None:
    noop.delay().get(timeout=WAIT)


def sequence(count: int, n: int) -> list[float]:
    result = chain(step.si(n) for _ in range(count)).delay()
    result.get(timeout=WAIT)
    inside = []
    while result is not None:
        inside.append(result.get(timeout=WAIT))
        result = result.parent
    return inside
