"""What RQ's workers run: imported in the worker, called in a fork of it for each job."""

from fibo import timed


def noop() -> None:
    return None


def step(n: int) -> float:
    return timed(n)
