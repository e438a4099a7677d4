"""What Airflow runs: a DAG for each length of a sequence, its `n` given by the run."""

import time

from airflow.sdk import DAG, get_current_context, task

CHAINS = (1, 5, 10, 40)
PAUSE = 0.05

with DAG('noop', schedule=None, is_paused_upon_creation=False):

    @task
    def noop() -> str:
        return 'done'

    noop()

with DAG('printing', schedule=None, is_paused_upon_creation=False):

    @task
    def printing() -> None:
        for _ in range(get_current_context()['params']['count']):
            print(f'line {time.time()}', flush=True)
            time.sleep(PAUSE)

    printing()

for length in CHAINS:
    with DAG(f'chain{length}', schedule=None, is_paused_upon_creation=False) as chain:

        @task
        def step() -> float:
            from fibo import timed

            return timed(get_current_context()['params']['n'])

        last = None
        for number in range(length):
            one = step.override(task_id=f'step{number}')()
            if last is not None:
                last >> one
            last = one
    globals()[chain.dag_id] = chain
