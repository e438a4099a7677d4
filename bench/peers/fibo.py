"""What the tasks of all peers compute."""

import time


def fibo(n: int) -> int:
    return n if n < 2 else fibo(n - 1) + fibo(n - 2)


def timed(n: int) -> float:
    """How long it took, by the task's own clock, in seconds: all that a sequence takes besides is the system's."""
    start = time.perf_counter()
    fibo(n)
    return time.perf_counter() - start
