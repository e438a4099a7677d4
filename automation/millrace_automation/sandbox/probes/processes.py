"""Forks until it is refused. Returns how many processes there were. Where they are counted from outside, that takes its time."""

import os
import signal
import time

_SECONDS = 10


def main(most: int, limit: int) -> int:
    children = []
    try:
        for _ in range(most):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError:
        pass
    if len(children) >= limit:
        time.sleep(_SECONDS)
    return len(children) + 1
