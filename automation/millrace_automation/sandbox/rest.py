"""Which environments' parents may go: their prepared children hold memory that nobody uses."""

import time
from collections.abc import Callable, Iterable

IDLE_SECONDS = 300.0
MOST = 8  # environments at once, beside the default one


class Rest:
    """Knows when each environment was last used."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS, most: int = MOST, now: Callable[[], float] = time.monotonic):
        self._idle_seconds = idle_seconds
        self._most = most
        self._now = now
        self._used: dict[str, float] = {}

    def use(self, environment: str) -> None:
        self._used[environment] = self._now()

    def due(self, present: Iterable[str]) -> list[str]:
        """Of those that have a parent, the ones whose parents are to end: unused for long, or too many, the longest unused first."""
        by_use = sorted(present, key=lambda environment: self._used.get(environment, 0.0))
        limit = self._now() - self._idle_seconds
        most = len(by_use) - self._most
        due = [environment for index, environment in enumerate(by_use) if index < most or self._used.get(environment, 0.0) <= limit]
        for environment in due:
            self._used.pop(environment, None)
        return due
