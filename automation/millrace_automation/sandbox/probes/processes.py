"""Forks until it is refused. Returns how many processes there were."""

import os
import signal


def main(most: int) -> int:
    children = []
    try:
        for _ in range(most):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError:
        pass
    return len(children) + 1
