"""Computes for longer than it may."""

import time


def main(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
