"""Dramatiq: broker and results in Redis."""

import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from fibo import timed

SUBMITTERS = 8
WAIT_MS = 120_000
PORT = int(os.environ['REDIS_PORT'])

backend = RedisBackend(port=PORT, db=1)
broker = RedisBroker(port=PORT)
broker.add_middleware(Results(backend=backend, store_results=True))
dramatiq.set_broker(broker)
results = redis.Redis(port=PORT, db=1)


@dramatiq.actor
def noop() -> str:
    return 'done'


@dramatiq.actor
def step(n: int) -> float:
    return timed(n)


def submit() -> None:
    noop.send()


def finished() -> int:
    return results.dbsize()


def once() -> None:
    noop.send().get_result(block=True, timeout=WAIT_MS)


def sequence(count: int, n: int) -> list[float]:
    steps = dramatiq.pipeline(step.message_with_options(args=(n,), pipe_ignore=True) for _ in range(count))
    return list(steps.run().get_results(block=True, timeout=WAIT_MS))
