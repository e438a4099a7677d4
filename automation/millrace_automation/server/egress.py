"""Lets runs reach the network: each by a gate of its own, which a process apart from this one serves (egress_process).

job -> passage (one run's) --policy, gate--> the process --connections--> the internet
         |  `--other end of the gate--> the script (sandbox/inside/network)
         `<-- lines for the run's log --'
The process starts with the first run that needs it. When it dies, the runs that it served lose their network, and the next one starts another.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from millrace.runner.v1 import egress_pb2

from . import log
from .egress_gate import Tell
from .egress_process import PACKET_BYTES

_ROOT = Path(__file__).resolve().parents[2]
_MODULE = f'{__package__}.egress_process'
_CLOSE_SECONDS = 5.0
_STOP_SECONDS = 5.0


class Passage:
    """One run's way out. `theirs` is for the script; `close` cuts it, and is to be called."""

    def __init__(self, link: '_Link', id: int, theirs: socket.socket, tell: Tell):
        self.theirs = theirs
        self.tell = tell
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = link
        self._id = id

    async def close(self) -> None:
        """Nothing is carried or told any more when it returns."""
        self.theirs.close()
        await self._link.close(self._id)


class Egress:
    def __init__(self, inner: Sequence[str] = ()):
        """`inner` are inner networks that rules may lead to."""
        self._inner = inner
        self._link: _Link | None = None
        self._lock = asyncio.Lock()

    async def open(self, policy: egress_pb2.Egress, tell: Tell) -> Passage:
        """Raises OSError when the process cannot be started. `tell` is given a level and a line."""
        async with self._lock:
            if not self._link or not self._link.is_alive:
                self._link = await _Link.start(self._inner)
            return await self._link.open(policy, tell)

    async def stop(self) -> None:
        if self._link:
            await self._link.stop()


class _Link:
    """The server's side of one process."""

    def __init__(self, control: socket.socket, process: asyncio.subprocess.Process):
        self.is_alive = True
        self._control = control
        self._process = process
        self._ids = itertools.count(1)
        self._passages: dict[int, Passage] = {}
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._woken = asyncio.Event()
        self._loop.add_reader(control.fileno(), self._hear)

    @classmethod
    async def start(cls, inner: Sequence[str]) -> '_Link':
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, '-P', '-s', '-m', _MODULE, str(theirs.fileno()), *inner),
                env={'PYTHONPATH': str(_ROOT)},
                cwd='/',
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(control, process)

    async def open(self, policy: egress_pb2.Egress, tell: Tell) -> Passage:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passage = Passage(self, next(self._ids), theirs, tell)
        self._passages[passage._id] = passage
        try:
            with ours:
                await self._send({'open': passage._id, 'policy': plain(policy)}, ours.fileno())
        except BaseException:
            theirs.close()
            self._passages.pop(passage._id, None)
            raise
        return passage

    async def close(self, id: int) -> None:
        passage = self._passages.get(id)
        if not passage:
            return
        with contextlib.suppress(OSError):  # then it is closed: the process has ended
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._send({'close': id})
                await passage.closed
        self._passages.pop(id, None)

    async def stop(self) -> None:
        self._lose()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _send(self, message: dict[str, object], *descriptors: int) -> None:
        """Raises OSError when the process is gone."""
        data = json.dumps(message).encode()
        async with self._sending:
            while self.is_alive:
                try:
                    socket.send_fds(self._control, [data], descriptors)
                    return
                except BlockingIOError:
                    await self._room()
        raise ConnectionError('the process that connects has ended')

    async def _room(self) -> None:
        self._woken.clear()
        self._loop.add_writer(self._control.fileno(), self._woken.set)
        try:
            await self._woken.wait()
        finally:
            if self.is_alive:
                self._loop.remove_writer(self._control.fileno())

    def _hear(self) -> None:
        try:
            packet = self._control.recv(PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b''
        if not packet:
            log.error('the process that connects for runs has ended', runs=len(self._passages))
            self._lose()
            return
        match json.loads(packet):
            case {'id': int(id), 'level': str(level), 'text': str(text)} if passage := self._passages.get(id):
                passage.tell(level, text)
            case {'closed': int(id)} if (passage := self._passages.get(id)) and not passage.closed.done():
                passage.closed.set_result(None)

    def _lose(self) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        self._woken.set()
        for passage in self._passages.values():
            if not passage.closed.done():
                passage.closed.set_result(None)


def plain(policy: egress_pb2.Egress) -> dict[str, object]:
    """As egress_rules.Policy reads it."""
    return {
        'rules': [[rule.host, list(rule.ports)] for rule in policy.rules],
        'connections': policy.max_connections,
        'mib': policy.max_mib,
    }
