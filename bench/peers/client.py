"""A peer's client: `client.py <module>` answers each line of JSON on its input by one on its output.

The module brings `submit`, `finished`, `once` and `sequence`, or its own `burst`; `lines` where it has live logs.
"""

import importlib
import json
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

# Whatever a library prints must not come between the answers.
answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
peer = importlib.import_module(sys.argv[1])


def burst(count: int) -> dict[str, float]:
    if hasattr(peer, 'burst'):
        accepted, completed, *lost = peer.burst(count)
        return {'accepted': count / accepted, 'completed': (count - sum(lost)) / completed, 'lost': sum(lost)}
    before = peer.finished()
    start = time.perf_counter()
    submit_all(count)
    accepted = time.perf_counter() - start
    while peer.finished() < before + count:
        time.sleep(0.01)
    return {'accepted': count / accepted, 'completed': count / (time.perf_counter() - start)}


def submit_all(count: int) -> None:
    threads = getattr(peer, 'SUBMITTERS', 1)
    if threads == 1:
        for _ in range(count):
            peer.submit()
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda _: peer.submit(), range(count)):
            pass


def once() -> float:
    start = time.perf_counter()
    peer.once()
    return (time.perf_counter() - start) * 1000


def sequence(count: int, n: int) -> dict[str, object]:
    start = time.perf_counter()
    inside = peer.sequence(count, n)
    return {'seconds': time.perf_counter() - start, 'inside': inside}


def lines(count: int) -> list[float]:
    return peer.lines(count)


OPERATIONS = {'burst': burst, 'once': once, 'sequence': sequence, 'lines': lines}

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {'answer': OPERATIONS[request.pop('op')](**request)}
    except Exception as error:
        traceback.print_exc()
        answer = {'error': f'{type(error).__name__}: {error}'}
    print(json.dumps(answer), file=answers, flush=True)
