"""One run as the server sees it."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from .events import PACKET_BYTES, ArtifactData, Decoder, Event, Exited, Output, Raised, Returned, Settled, Told
from .inside.channel import PART_BYTES

_CHUNK_BYTES = 65536
_PACKETS = 256  # read from the channel before what the pipes hold is looked at again
_LEFT_OPEN_SECONDS = 1.0  # how long to read from a pipe that somebody still holds when the run has ended


class _Pipe:
    """A standard stream. `taken` counts the bytes read, `data` is what was read and not told yet."""

    def __init__(self, stream: str, descriptor: int, forget: Callable[[int], None]):
        self.stream = stream
        self.descriptor: int | None = descriptor
        self.taken = 0
        self.data = b''
        self._forget = forget
        os.set_blocking(descriptor, False)

    def read(self, most: int = _CHUNK_BYTES) -> None:
        if self.descriptor is None or self.data:
            return
        try:
            self.data = os.read(self.descriptor, min(most, _CHUNK_BYTES))
        except BlockingIOError:
            return
        if not self.data:
            self.close()
        self.taken += len(self.data)

    def tell(self, before: int, now: float) -> list[Event]:
        """What stands before that position of the stream."""
        length = min(max(before - (self.taken - len(self.data)), 0), len(self.data))
        told, self.data = self.data[:length], self.data[length:]
        return [Output(self.stream, told, now)] if told else []

    def close(self) -> None:
        if self.descriptor is not None:
            self._forget(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = None


class Running(Protocol):
    """A child, or a run of one that is kept."""

    channel: socket.socket
    output: int
    error: int
    exit: asyncio.Future[Exited]

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Process:
    """Made by Sandbox.launch. Whoever has it reads its events to the end, or closes their iterator, which kills it."""

    is_reused = False
    """It had run before."""
    may_be_kept = False
    """It says by Parsed whether it runs later ones too."""

    def __init__(self, child: Running):
        self._child = child
        self._channel: socket.socket | None = child.channel
        self._pipes = (_Pipe('stdout', child.output, self._forget), _Pipe('stderr', child.error, self._forget))
        self._decoder = Decoder()
        self._loop = asyncio.get_running_loop()
        self._has_verdict = False
        self._watched: set[int] = set()  # descriptors that the loop looks at
        self._woken: asyncio.Future[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Nothing more comes than what the streams hold."""
        return self._child.exit.done()

    def answer(self, packet: bytes) -> None:
        """To the script, which may not listen."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(packet)

    def terminate(self) -> None:
        """SIGTERM to the script, which arrives as KeyboardInterrupt."""
        self._child.terminate()

    def kill(self) -> None:
        """SIGKILL to everything in the sandbox, also to what left its session."""
        self._child.kill()

    async def events(self) -> AsyncIterator[Event]:
        """Once. Reads only while somebody asks: when nobody does, the pipes fill and the script waits. Exited comes last, always."""
        try:
            give_up_time: float | None = None
            has_settled = False
            while True:
                told = self._read()
                for event in told:
                    yield event
                if told:
                    if not self.has_ended:
                        await asyncio.sleep(0)  # a flood leaves the others their turn
                    continue
                if self._has_verdict and not has_settled:
                    has_settled = True
                    if not self.has_ended:
                        yield Settled()
                        continue
                if self._child.exit.done():
                    now = time.monotonic()
                    give_up_time = give_up_time or now + _LEFT_OPEN_SECONDS
                    if self._is_over() or now > give_up_time:
                        break
                    await self._readable(0.05)
                else:
                    await self._readable(None)
            yield await self._child.exit
        finally:
            self._close()

    def _is_over(self) -> bool:
        """Of a run that has ended: nothing more can come."""
        return not self._open()

    def _open(self) -> list[int]:
        found = [pipe.descriptor for pipe in self._pipes if pipe.descriptor is not None]
        return found if self._channel is None else [*found, self._channel.fileno()]

    def _read(self) -> list[Event]:
        """What is there now, in the order in which it was written as far as that is known."""
        for pipe in self._pipes:
            pipe.read()
        now = time.time()
        told: list[Event] = []
        messages, is_all = self._messages(now)
        for *positions, message in messages:
            for pipe, position in zip(self._pipes, positions, strict=True):
                told += pipe.tell(position, now)
                if pipe.taken < position:  # written since the read above
                    pipe.read(position - pipe.taken)
                    told += pipe.tell(position, now)
            told.append(message)
        for pipe in self._pipes if is_all else ():
            told += pipe.tell(pipe.taken, now)
        return told

    def _messages(self, now: float) -> tuple[list[tuple[int, int, Told]], bool]:
        """What the channel holds, and whether that is all of it."""
        found = []
        for _ in range(_PACKETS):
            if self._channel is None:
                return found, True
            try:
                packet = self._channel.recv(PACKET_BYTES)
            except BlockingIOError:
                return found, True
            except OSError:
                packet = b''
            if not packet:
                self._close_channel()
                return found, True
            if message := self._decoder.feed(packet, now):
                found.append(message)
                if isinstance(message[2], ArtifactData):  # a piece at a time: the next ones wait in the channel
                    return found, False
                if isinstance(message[2], Returned | Raised):  # what comes after the verdict does not count
                    self._has_verdict = True
                    self._close_channel()
                    return found, True
        return found, False

    async def _readable(self, timeout: float | None) -> None:
        """Until there is something to read, or the run has ended."""
        self._woken = self._loop.create_future()
        for descriptor in self._open():
            if descriptor not in self._watched:
                self._watched.add(descriptor)
                self._loop.add_reader(descriptor, self._wake)
        if timeout is None:
            self._child.exit.add_done_callback(self._wake)
        else:
            timer = self._loop.call_later(timeout, self._wake)
        try:
            await self._woken
        finally:
            self._woken = None
            if timeout is None:
                self._child.exit.remove_done_callback(self._wake)
            else:
                timer.cancel()

    def _wake(self, *_: object) -> None:
        if self._woken is None:
            for descriptor in list(self._watched):  # nobody asks: the loop must not turn for what stays unread
                self._forget(descriptor)
        elif not self._woken.done():
            self._woken.set_result(None)

    def _forget(self, descriptor: int) -> None:
        if descriptor in self._watched:
            self._watched.remove(descriptor)
            self._loop.remove_reader(descriptor)

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _close(self) -> None:
        self._child.kill()
        self._close_channel()
        for pipe in self._pipes:
            pipe.close()


def packets_of(request: dict[str, Any]) -> list[bytes]:
    """As the script reads it: the length, a line end, and the request in parts. Most requests are one packet."""
    data = json.dumps(request).encode()
    first, *rest = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return [b'%d\n%b' % (len(data), first), *rest]


def network_of(gate: socket.socket | None) -> dict[str, bool]:
    """What the request says of the network: nothing, for those that have none."""
    return {'network': True} if gate else {}


async def give_network(channel: socket.socket, gate: socket.socket) -> None:
    """What the script reads behind a request that says so."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            socket.send_fds(channel, [b'N'], [gate.fileno()])
            return
        except BlockingIOError:
            has_room = asyncio.Event()
            loop.add_writer(channel.fileno(), has_room.set)
            try:
                await has_room.wait()
            finally:
                loop.remove_writer(channel.fileno())
