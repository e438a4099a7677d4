"""Which of the jobs that were taken may run: never more than there are slots.

While all slots change hands fast, jobs are short. Then more of them are taken ahead, so that they follow each other without a pause, and
few run at once: as many as keep the processors busy, in processes that are still warm, where more would be in each other's way.
"""

import asyncio
import os
import time
from collections import deque

_OFTEN = 4
_TURNOVER_SECONDS = 0.25  # when all slots change hands so often in that time, jobs are short
_AHEAD = 2  # jobs for each slot that are taken ahead then
_FEW = 2 * (os.cpu_count() or 1)  # that run at once then
_STILL_SECONDS = 0.05  # unless none has ended for that long
_OFFER_SECONDS = 1.0  # for which jobs may still come that were asked for ahead
_WAIT_SECONDS = 0.5  # that a job waits for its turn


class NoTurn(Exception):
    """It would take too long: the job is better off elsewhere."""


class Turns:
    def __init__(self, slots: int):
        self.running = 0
        self._slots = slots
        self._few = min(_FEW, slots)
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        """In their order, with the time until which they wait."""
        self._ends: deque[float] = deque(maxlen=_OFTEN * slots)
        self._offered_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ahead(self) -> int:
        """How many jobs shall be here beyond the slots."""
        return _AHEAD * self._slots if self._are_short(time.monotonic()) else 0

    def offer(self) -> None:
        """Somebody is told how many may come."""
        if self.ahead:
            self._offered_until = time.monotonic() + _OFFER_SECONDS

    @property
    def most(self) -> int:
        """How many jobs may be here."""
        return self._slots * (1 + _AHEAD) if time.monotonic() < self._offered_until else self._slots

    async def take(self) -> None:
        """Returns when the job may run; `give` is to follow. Raises NoTurn."""
        now = time.monotonic()
        if not self._waiting and self.running < self._width(now):
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, now + _WAIT_SECONDS))
        self._look_later()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and not turn.exception():  # it was given one just now
                self._pass_on()
            raise

    def give(self) -> None:
        """It has ended."""
        self._ends.append(time.monotonic())
        self._pass_on()

    def _pass_on(self) -> None:
        self.running -= 1
        self._begin(time.monotonic())

    def _are_short(self, now: float) -> bool:
        return len(self._ends) == self._ends.maxlen and now - self._ends[0] <= _TURNOVER_SECONDS

    def _width(self, now: float) -> int:
        return self._few if self._are_short(now) and now - self._ends[-1] < _STILL_SECONDS else self._slots

    def _begin(self, now: float) -> None:
        while self._waiting and self.running < self._width(now):
            turn, _ = self._waiting.popleft()
            if not turn.done():  # nobody waits any longer
                self.running += 1
                turn.set_result(None)

    def _look_later(self) -> None:
        self._timer = self._timer or asyncio.get_running_loop().call_later(_STILL_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._begin(now)
        while self._waiting and self._waiting[0][1] <= now:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(NoTurn)
        if self._waiting:
            self._look_later()
