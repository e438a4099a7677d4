"""Airflow: a DAG run for each no-op, and one for a sequence, through its REST API, which answers a wait by looking each 50 ms."""

import json
import os
import threading
import time
import uuid

import httpx

LOOK_EVERY = 0.05
LAST_LINES = 15
WAIT = 280
DAGS = 6  # in airflow_dags
READY = 80

root = f'http://127.0.0.1:{os.environ["AIRFLOW__API__PORT"]}'
api = httpx.Client(base_url=f'{root}/api/v2', timeout=WAIT)
api.headers['authorization'] = f'Bearer {httpx.get(f"{root}/auth/token").raise_for_status().json()["access_token"]}'


def wait_for_dags() -> None:
    deadline = time.monotonic() + READY
    while api.get('/dags').raise_for_status().json()['total_entries'] < DAGS:
        if time.monotonic() > deadline:
            raise TimeoutError('the DAGs are not read')
        time.sleep(LOOK_EVERY)


def begin(dag: str, **params: int) -> str:
    run = uuid.uuid4().hex
    api.post(f'/dags/{dag}/dagRuns', json={'dag_run_id': run, 'logical_date': None, 'conf': params}).raise_for_status()
    return run


def end(dag: str, run: str, tasks: list[str]) -> dict[str, object]:
    """What the tasks returned."""
    answer = api.get(f'/dags/{dag}/dagRuns/{run}/wait', params={'interval': LOOK_EVERY, 'result': tasks}).raise_for_status()
    last = json.loads(answer.text.strip().splitlines()[-1])
    if last['state'] != 'success':
        raise RuntimeError(f'a run of {dag} ended as {last["state"]}')
    return last.get('results', {})


def burst(count: int) -> tuple[float, float]:
    start = time.perf_counter()
    runs = [begin('noop') for _ in range(count)]
    accepted = time.perf_counter() - start
    for run in runs:
        end('noop', run, ['noop'])
    return accepted, time.perf_counter() - start


def once() -> None:
    end('noop', begin('noop'), ['noop'])


def sequence(count: int, n: int) -> list[float]:
    dag = f'chain{count}'
    return list(end(dag, begin(dag, n=n), [f'step{number}' for number in range(count)]).values())


def lines(count: int) -> list[float]:
    """From print to the line in an answer of the API, which is asked all the time: it has no stream of a running task's log."""
    seen: dict[float, float] = {}
    run = begin('printing', count=count)
    over = threading.Event()

    def look() -> None:
        while not over.is_set() and len(seen) < count:
            answer = api.get(f'/dags/printing/dagRuns/{run}/taskInstances/printing/logs/1', params={'full_content': True})
            for record in answer.json().get('content', []) if answer.is_success else []:
                word, _, told = record.get('event', '').partition(' ')
                if word == 'line':
                    seen.setdefault(float(told), time.time())
            time.sleep(LOOK_EVERY)

    looker = threading.Thread(target=look)
    looker.start()
    end('printing', run, [])
    looker.join(LAST_LINES)
    over.set()
    looker.join()
    return [(at - told) * 1000 for told, at in seen.items()]


wait_for_dags()
