"""The processes that are kept for later runs: which run may have which, how many wait, and for how long.

Runs share a process only when all of the key agrees, and a process has one run at a time.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from .nursery import Child
from .process import Process, network_of, packets_of
from .resident import Resident, TurnProcess
from .settings import Limits, Reuse

_SWEEP_SECONDS = 1.0
_ARM_SECONDS = 0.002  # by then a result is on its way, and a burst has given its processes their next runs


@dataclass(frozen=True, slots=True)
class Key:
    """What runs that share a process agree in. The tier is the server's own, the same for all."""

    owner: str
    """Workspace, revision, principal and what rules the network, as the caller names them."""
    source: str
    environment: str
    limits: Limits


Values = Mapping[str, Mapping[str, str]]
"""What a run may read by name: `secrets`, and `variables` as JSON. The owner of the key names their versions."""
Spawn = Callable[[str, Limits, dict, list[socket.socket], socket.socket | None, Callable[[], None]], Awaitable[Child]]
"""The last one is called when there is a child, before it has the request. When that raises, it is not to have it."""


class Residents:
    def __init__(self, settings: Reuse, spawn: Spawn, available_mib: Callable[[], int] | None = None):
        self.on_end: Callable[[str], None] = lambda why: None
        """Called with the reason whenever a process that was kept, or was to be, comes to its end."""
        self._settings = settings
        self._spawn = spawn
        self._available_mib = available_mib or _available_mib
        self._idle: dict[Key, list[Resident]] = {}
        self._hopes: dict[Key, list[asyncio.Future[Resident]]] = {}
        """Of runs that have no process yet."""
        self._waiting: dict[Resident, Key] = {}
        """Those that are idle, the longest idle first."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._armer: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        return self._settings.parked > 0

    @property
    def parked(self) -> int:
        return len(self._waiting)

    async def launch(
        self, key: Key, input_json: str, traceparent: str, network: socket.socket | None = None, values: Values | None = None
    ) -> Process:
        request = {'mode': 'run', 'input': input_json, 'traceparent': traceparent} | (values or {})
        while True:
            resident = self._take(key) or await self._first(key, request, network)
            if isinstance(resident, Process):
                return resident
            with contextlib.suppress(OSError):  # it ended while it waited
                packets = packets_of(request | network_of(network))
                return await resident.next(packets, network, lambda: self.launch(key, input_json, traceparent, network, values))

    def stop(self) -> None:
        for timer in (self._sweeper, self._armer):
            if timer:
                timer.cancel()
        self._sweeper = self._armer = None
        self._settings = Reuse(0)
        for resident in list(self._waiting):
            resident.end('stop')

    async def _first(self, key: Key, request: dict, network: socket.socket | None) -> Resident | Process:
        """The run in a new one, or one whose run ends before there is a process for a new one."""
        freed: asyncio.Future[Resident] = asyncio.get_running_loop().create_future()

        def commit() -> None:
            if not freed.cancelled() and not freed.cancel():
                raise asyncio.CancelledError

        born = asyncio.create_task(self._bear(key, request | {'source': key.source}, network, commit))
        hopes = self._hopes.setdefault(key, [])
        hopes.append(freed)
        try:
            await asyncio.wait((born, freed), return_when=asyncio.FIRST_COMPLETED)
            return freed.result() if freed.done() and not freed.cancelled() else await born
        except BaseException:
            if freed.done() and not freed.cancelled():
                self._park(freed.result(), key)
            elif born.done() and not born.cancelled() and not born.exception():
                born.result().give_up()
            raise
        finally:
            born.cancel()
            freed.cancel()
            hopes.remove(freed)
            if not hopes:
                del self._hopes[key]

    async def _bear(self, key: Key, request: dict, network: socket.socket | None, commit: Callable[[], None]) -> TurnProcess:
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                child = await self._spawn(key.environment, key.limits, request, [theirs], network, commit)
        except BaseException:
            line.close()
            raise
        return Resident(child, line, lambda resident: self._park(resident, key), self._forget).first()  # which may be over already

    def _take(self, key: Key) -> Resident | None:
        """The one that has just been used: it is the warmest, and the others may go."""
        if not (idle := self._idle.get(key)):
            return None
        resident = idle[-1]
        self._remove(resident)
        return resident

    def _park(self, resident: Resident, key: Key) -> None:
        if why := self._is_due(resident, time.monotonic()):
            resident.end(why)
            return
        for freed in self._hopes.get(key, ()):
            if not freed.done():
                freed.set_result(resident)
                return
        self._idle.setdefault(key, []).append(resident)
        self._waiting[resident] = key
        if len(self._waiting) > self._settings.parked:
            next(iter(self._waiting)).end('room')
        if not self._sweeper and self._waiting:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        if not self._armer:
            self._armer = asyncio.get_running_loop().call_later(_ARM_SECONDS, self._arm)

    def _arm(self) -> None:
        self._armer = None
        for resident in self._waiting:
            resident.arm()

    def _is_due(self, resident: Resident, now: float) -> str | None:
        settings = self._settings
        if not settings.parked:
            return 'stop'
        if resident.runs >= settings.runs:
            return 'runs'
        if now >= resident.born + settings.age_seconds:
            return 'age'
        return 'retired' if resident.is_retired else None

    def _sweep(self) -> None:
        """Ends those that have waited for long enough, and all of them when memory is short."""
        self._sweeper = None
        now = time.monotonic()
        is_short = self._available_mib() < self._settings.reserve_mib
        for resident in list(self._waiting):
            is_idle = now >= resident.idle_since + self._settings.idle_seconds
            if why := 'memory' if is_short else 'idle' if is_idle else self._is_due(resident, now):
                resident.end(why)
        if self._waiting:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _forget(self, resident: Resident, why: str) -> None:
        self._remove(resident)
        self.on_end(why)

    def _remove(self, resident: Resident) -> None:
        if (key := self._waiting.pop(resident, None)) is None:
            return
        idle = self._idle[key]
        idle.remove(resident)
        if not idle:
            del self._idle[key]


def _available_mib() -> int:
    """What the kernel thinks can be had without swapping."""
    with contextlib.suppress(OSError, ValueError), open('/proc/meminfo') as file:
        for line in file:
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) // 1024
    return 1 << 40
