"""The asyncio side of one parent: its children that wait, and those that run."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .events import Exited
from .inside.plan import Plan
from .settings import Limits, SandboxUnavailable

_PROGRAM = Path(__file__).parent / 'inside' / 'start.py'
_START_SECONDS = 60.0
_STOP_SECONDS = 8.0
_RIGHTS = struct.Struct('3i')  # the descriptors of a child
_RIGHTS_BYTES = socket.CMSG_SPACE(_RIGHTS.size)
_GONE = "the sandbox's parent has ended"


@dataclass(eq=False)
class Child:
    """A sandboxed process, and the server's ends of its channel and streams."""

    nursery: 'Nursery'
    id: int
    channel: socket.socket
    output: int
    error: int
    exit: asyncio.Future[Exited]
    armed: asyncio.Future[None]
    pool: int = 0

    def launch(self, limits: Limits) -> None:
        self.nursery.send({'launch': self.id, 'limits': asdict(limits), 'pool': self.pool})

    def terminate(self) -> None:
        if not self.exit.done():
            self.nursery.send({'terminate': self.id})

    def kill(self) -> None:
        if not self.exit.done():
            self.nursery.send({'kill': self.id})

    def close(self) -> None:
        """Of a child that nobody reads from."""
        self.channel.close()
        os.close(self.output)
        os.close(self.error)


@dataclass
class Pool:
    """Children that wait, or else those who wait for one."""

    ready: deque[Child] = field(default_factory=deque)
    waiting: deque[tuple[asyncio.Future[Child], Limits]] = field(default_factory=deque)


class Nursery:
    """`start` waits until the parent is up. When it dies, all its runs end with signal 9 and `is_alive` is false."""

    def __init__(self, plan: Plan, control: socket.socket, process: asyncio.subprocess.Process):
        self.plan = plan
        self.facts: dict[str, Any] = {}
        self.fault = ''
        self.is_alive = True
        self.is_retired = False
        self.launched = 0
        self._control = control
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[bytes] = deque()
        self._pools = (Pool(), Pool())  # the second one is of those that have a keeper where the others have none
        self._running: dict[int, Child] = {}
        self._is_warm = asyncio.Event()
        self._up: asyncio.Future[None] = self._loop.create_future()
        self.gone = asyncio.Event()

    @classmethod
    async def start(cls, plan: Plan) -> 'Nursery':
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        python = os.path.realpath(getattr(sys, '_base_executable', '') or sys.executable)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(python, '-I', '-S', '-X', 'utf8', str(_PROGRAM), str(theirs.fileno()), json.dumps(asdict(plan))),
                env={},
                cwd='/',
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        nursery = cls(plan, control, process)
        nursery._loop.add_reader(control.fileno(), nursery._on_readable)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await nursery._up
        except TimeoutError:
            nursery.fault = f'the parent was not up after {_START_SECONDS:g} s'
        except SandboxUnavailable:
            pass
        if not nursery.facts:
            await nursery.stop()
            raise SandboxUnavailable(nursery.fault)
        return nursery

    @property
    def pid(self) -> int:
        return self._process.pid

    async def warm_up(self) -> None:
        """Until all children that it keeps ahead are prepared, or the parent is gone."""
        await self._is_warm.wait()

    async def take(self, limits: Limits, may_be_kept: bool = False) -> Child:
        """A prepared child, as soon as there is one. The parent knows that it is in use when this returns. One that may be kept has a keeper."""
        pool = self._pools[may_be_kept and not self.facts['has_keepers']]
        while pool.ready:
            child = pool.ready.popleft()
            child.launch(limits)  # one that ended while it waited too, so that another is made
            if not child.exit.done():
                return child
            child.close()
        if self.is_retired or not self.is_alive:
            raise SandboxUnavailable(self.fault or _GONE)
        waiting: asyncio.Future[Child] = self._loop.create_future()
        pool.waiting.append((waiting, limits))
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and not waiting.exception():
                waiting.result().kill()
                waiting.result().close()
            raise

    def retire(self) -> None:
        """Makes no more children; the parent ends with its last run. Who waits for a child is to ask another parent."""
        self.is_retired = True
        self._fail_waiting(_GONE)
        self.send({'retire': True})

    def _fail_waiting(self, fault: str) -> None:
        for pool in self._pools:
            for waiting, _ in pool.waiting:
                if not waiting.done():
                    waiting.set_exception(SandboxUnavailable(fault))
            pool.waiting.clear()

    async def stop(self) -> None:
        """Ends everything. Returns when nothing is left."""
        self._lose()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self.plan.tier < 2:  # a parent that was killed has left its folder
            await asyncio.to_thread(shutil.rmtree, self.plan.work, True)

    def send(self, message: dict[str, Any]) -> None:
        if not self.is_alive:
            return
        self._backlog.append(json.dumps(message).encode())
        if len(self._backlog) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._backlog:
            try:
                self._control.send(self._backlog[0])
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:
                self._lose()
                return
            self._backlog.popleft()
        self._loop.remove_writer(self._control.fileno())

    def _on_readable(self) -> None:
        while self.is_alive:
            try:
                data, rights, _, _ = self._control.recvmsg(16384, _RIGHTS_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b''
            if not data:
                self._lose()
                return
            self._take_message(json.loads(data), _RIGHTS.unpack(rights[0][2]) if rights else ())

    def _take_message(self, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        match message:
            case {'new': int(id)}:
                self._admit(id, message['pool'], *descriptors)
            case {'armed': int(id)}:
                if (child := self._running.get(id)) and not child.armed.done():
                    child.armed.set_result(None)
            case {'exit': int(id)}:
                if child := self._running.pop(id, None):
                    _end(child, message)
            case {'up': dict(facts)}:
                self.facts = facts
                self._up.set_result(None)
            case {'failed': str(fault)}:
                self.fault = fault

    def _admit(self, id: int, number: int, channel: int, output: int, error: int) -> None:
        endpoint = socket.socket(fileno=channel)
        endpoint.setblocking(False)
        child = Child(self, id, endpoint, output, error, self._loop.create_future(), self._loop.create_future(), number)
        pool = self._pools[number]
        self._running[id] = child
        while pool.waiting:
            waiting, limits = pool.waiting.popleft()
            if not waiting.done():
                child.launch(limits)  # at once: a message that the parent is to retire must not come first
                waiting.set_result(child)
                return
        pool.ready.append(child)
        if len(self._pools[0].ready) >= self.plan.prepared:
            self._is_warm.set()

    def _lose(self) -> None:
        """The parent is gone, or is not needed any longer."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        self._fail_waiting(self.fault or _GONE)
        if not self._up.done():
            self._up.set_exception(SandboxUnavailable(self.fault or _GONE))
        for child in self._running.values():
            _end(child, {'code': None, 'signal': int(signal.SIGKILL), 'cpu': 0.0, 'peak': 0, 'oom': False})
        self._running.clear()
        for pool in self._pools:
            for child in pool.ready:
                child.close()
            pool.ready.clear()
        self._is_warm.set()
        self.gone.set()


def _end(child: Child, message: dict[str, Any]) -> None:
    if not child.exit.done():
        child.exit.set_result(Exited(message['code'], message['signal'], message['cpu'], message['peak'], message['oom'], time.time()))
    if not child.armed.done():
        child.armed.set_result(None)
