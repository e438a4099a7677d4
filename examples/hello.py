"""Greets somebody step by step. The parameters of `main` are the input; what it returns is the output."""

import logging
import time

import millrace

log = logging.getLogger('hello')


def main(name: str = 'world', steps: int = 5, pause_seconds: float = 0.4) -> dict[str, object]:
    log.info('greeting %s in %d steps', name, steps)
    started = time.monotonic()
    for step in range(1, steps + 1):
        time.sleep(pause_seconds)
        print(f'step {step} of {steps}: hello, {name}!')
        millrace.progress(step / steps, f'step {step} of {steps}')
    log.warning('that was the last step')
    return {'greeting': f'Hello, {name}!', 'steps': steps, 'seconds': round(time.monotonic() - started, 1)}
