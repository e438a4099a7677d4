"""Prefect: background tasks for no-ops, one flow run for a sequence. `python prefect_peer.py` is the task worker."""

import os
import threading
import time

import httpx
from fibo import timed
from prefect import flow, task
from prefect.cache_policies import NO_CACHE  # else the second equal call of a flow run is answered from the first
from prefect.futures import PrefectDistributedFuture
from prefect.task_worker import serve

PATIENCE = 20
LOOK_EVERY = 0.05
LAST_LINES = 15


@task(persist_result=True, cache_policy=NO_CACHE)
def noop() -> str:
    return 'done'


@task(persist_result=True, cache_policy=NO_CACHE)
def step(n: int) -> float:
    return timed(n)


@flow
def steps(count: int, n: int) -> list[float]:
    return [step(n) for _ in range(count)]


@flow(log_prints=True)
def printing(count: int) -> None:
    for _ in range(count):
        print(f'line {time.time()}')
        time.sleep(0.05)


def burst(count: int) -> tuple[float, float, int]:
    begin = time.perf_counter()
    submitted = [noop.delay() for _ in range(count)]
    accepted = time.perf_counter() - begin
    completed, lost = accepted, 0
    for one in submitted:
        if is_done(one):
            completed = time.perf_counter() - begin
        else:
            lost += 1
    return accepted, completed, lost


def once() -> None:
    is_done(noop.delay())


def is_done(submitted: PrefectDistributedFuture) -> bool:
    """Waits for the end. A task that has no state yet cannot be waited for, so it is asked again; some are never started."""
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        try:
            submitted.wait(timeout=left)
            break
        except RuntimeError:
            time.sleep(0.01)
    is_completed = submitted.state.is_completed()
    if is_completed:
        submitted.result()
    return is_completed


def sequence(count: int, n: int) -> list[float]:
    return steps(count, n)


def lines(count: int) -> list[float]:
    """From print to the line in an answer of the API, which is asked all the time: there is no stream of prints."""
    seen: dict[float, float] = {}
    over = threading.Event()
    begin = time.time()

    def look() -> None:
        with httpx.Client(base_url=os.environ['PREFECT_API_URL']) as api:
            while not over.is_set() and len(seen) < count:
                for record in api.post('/logs/filter', json={'sort': 'TIMESTAMP_DESC', 'limit': 200}).json():
                    word, _, told = record['message'].partition(' ')
                    if word == 'line' and float(told) >= begin:
                        seen.setdefault(float(told), time.time())
                time.sleep(LOOK_EVERY)

    looker = threading.Thread(target=look)
    looker.start()
    printing(count)
    looker.join(LAST_LINES)
    over.set()
    looker.join()
    return [(at - told) * 1000 for told, at in seen.items()]


if __name__ == '__main__':
    serve(noop, limit=8)
