"""A process that runs one run after the other, as the server sees it.

  running -> (it returned, and init finds nothing left) idle -> armed: it holds the ends of its next run -> running ...
         `-> anything else: it is being ended
Init parks it, over the line (inside/residence); what the script itself says decides about its own run only.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from .events import Event, Exited, Parsed
from .inside.residence import ARM, ENDED, PARKED, RUN, TERMINATE
from .nursery import Child
from .process import Process, give_network

_HEAD_START_SECONDS = 0.003  # in which a run may end before its streams are looked at one by one
_PACKET_BYTES = 256


class Ends:
    """Ours of a run."""

    def __init__(self, line: socket.socket, packet: bytes):
        """Sends the others to init with the packet. Raises OSError when it is gone."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (self.output, output_end), (self.error, error_end) = os.pipe(), os.pipe()
        self.channel.setblocking(False)
        try:
            socket.send_fds(line, [packet], [output_end, error_end, theirs.fileno()])
        except BaseException:
            self.close()
            raise
        finally:  # before the request is sent: nobody waits for a process that has ended
            theirs.close()
            os.close(output_end)
            os.close(error_end)

    def close(self) -> None:
        self.channel.close()
        os.close(self.output)
        os.close(self.error)


class Turn:
    """One run, with what Process asks of a child."""

    def __init__(self, resident: 'Resident', ends: Ends | Child):
        self._resident = resident
        self.channel = ends.channel
        self.output = ends.output
        self.error = ends.error
        self.exit: asyncio.Future[Exited] = asyncio.get_running_loop().create_future()
        self.waiter: asyncio.Future[None] | None = None
        """Somebody who waits for the end, and is woken without a detour."""

    def end(self, exited: Exited) -> None:
        self.exit.set_result(exited)
        if self.waiter:
            _wake(self.waiter)

    def terminate(self) -> None:
        if not self.exit.done():
            self._resident.terminate()

    def kill(self) -> None:
        if not self.exit.done():
            self._resident.kill()


class TurnProcess(Process):
    """Most runs are over before anything else is to be done: so it first waits for that alone.

    A process may end while it waits, and that is known only when a run was sent to it. Before any code of the user's runs the script says
    so; a run that ends without that word is run by another process.
    """

    def __init__(self, turn: Turn, resident: 'Resident', again: Callable[[], Awaitable[Process]] | None):
        super().__init__(turn)
        self.is_reused = again is not None
        self.may_be_kept = again is None
        self._turn = turn
        self._resident = resident
        self._again = again
        self._other: Process | None = None
        self._has_waited = self._has_begun = self._is_stopped = False

    @property
    def has_ended(self) -> bool:
        return self._other.has_ended if self._other else super().has_ended

    def answer(self, packet: bytes) -> None:
        self._other.answer(packet) if self._other else super().answer(packet)

    def terminate(self) -> None:
        self._is_stopped = True
        self._other.terminate() if self._other else super().terminate()

    def kill(self) -> None:
        self._is_stopped = True
        self._other.kill() if self._other else super().kill()

    def give_up(self) -> None:
        """Nobody reads the run: its process is no good to others either."""
        self._resident.end('broken')
        self._close()

    async def events(self) -> AsyncIterator[Event]:
        try:
            async with contextlib.aclosing(super().events()) as events:
                async for event in events:
                    match event:
                        case Parsed():
                            self._has_begun = True
                        case Exited() if self._again and not (self._has_begun or self._is_stopped):
                            self._other = await self._again()
                            break
                    yield event
        finally:
            self._resident.over(self._turn, self._has_verdict)
        if self._other:
            async with contextlib.aclosing(self._other.events()) as events:
                async for event in events:
                    yield event

    async def _readable(self, timeout: float | None) -> None:
        if self._has_waited:
            await super()._readable(timeout)
            return
        self._has_waited = True
        loop = asyncio.get_running_loop()
        self._turn.waiter = woken = loop.create_future()
        timer = loop.call_later(_HEAD_START_SECONDS, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    def _is_over(self) -> bool:
        """Init has looked: nobody writes any more, although the process has its ends open."""
        return self._resident.is_parked or super()._is_over()


class Resident:
    def __init__(
        self, child: Child, line: socket.socket, is_free: Callable[['Resident'], None], has_ended: Callable[['Resident', str], None]
    ):
        self.born = self.idle_since = time.monotonic()
        self.runs = 0
        self.is_parked = False
        self._child = child
        self._line = line
        self._is_free = is_free
        self._has_ended = has_ended
        self._turn: Turn | None = None
        self._ends: Ends | None = None
        self._spent = 0.0
        self._why = ''
        self._is_closed = False
        line.setblocking(False)
        asyncio.get_running_loop().add_reader(line.fileno(), self._hear)
        child.exit.add_done_callback(self._exited)

    @property
    def is_retired(self) -> bool:
        """Its parent waits for the last of its children."""
        return self._child.nursery.is_retired

    def first(self) -> TurnProcess:
        return self._begin(self._child, None)

    async def next(self, packets: list[bytes], network: socket.socket | None, again: Callable[[], Awaitable[Process]]) -> Process:
        """`again` finds another process for the run, should this one have ended meanwhile. Raises OSError where that is known already."""
        ends, self._ends = self._ends, None
        try:
            if ends:
                self._line.send(RUN)
            else:
                ends = Ends(self._line, RUN)
        except OSError:
            if ends:
                ends.close()
            self.end('broken')
            raise
        process = self._begin(ends, again)
        try:
            for packet in packets:
                await asyncio.get_running_loop().sock_sendall(ends.channel, packet)
            if network:
                await give_network(ends.channel, network)
        except BaseException:
            process.give_up()
            raise
        return process

    def arm(self) -> None:
        """While it is idle: makes the ends of its next run, so that it need not wait for them."""
        with contextlib.suppress(OSError):  # it is gone, which will be told
            self._ends = self._ends or Ends(self._line, ARM)

    def _begin(self, ends: Ends | Child, again: Callable[[], Awaitable[Process]] | None) -> TurnProcess:
        self.runs += 1
        self.is_parked = False
        self._turn = Turn(self, ends)
        return TurnProcess(self._turn, self, again)

    def terminate(self) -> None:
        self._why = self._why or 'stopped'
        try:
            self._line.send(TERMINATE)
        except OSError:
            self._child.terminate()

    def kill(self) -> None:
        self._why = self._why or 'stopped'
        self._child.kill()

    def end(self, why: str) -> None:
        self._why = self._why or why
        self._child.kill()
        self._close()

    def over(self, turn: Turn, has_verdict: bool) -> None:
        """Somebody has read the run to its end."""
        if turn is not self._turn:
            return
        self._turn = None
        if self._is_closed or not self.is_parked:
            return
        if self._why or not has_verdict:  # nothing said how it ended: who parked it was not the script as we know it
            self.end(self._why or 'verdict')
            return
        self.idle_since = time.monotonic()
        self._is_free(self)

    def _hear(self) -> bool:
        """Takes what init said next; False when there is nothing."""
        try:
            packet = self._line.recv(_PACKET_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            packet = b''
        turn = self._turn
        if packet[:1] == PARKED and turn and not turn.exit.done():
            used, peak = packet[1:].split()
            self._spent += float(used)
            self.is_parked = True
            turn.end(Exited(0, None, float(used), int(peak), False, time.time()))
        elif packet[:1] == ENDED:
            self._why = self._why or packet[1:].decode()
        else:
            asyncio.get_running_loop().remove_reader(self._line.fileno())  # its end will be told
        return bool(packet)

    def _exited(self, exit: asyncio.Future[Exited]) -> None:
        while not self._is_closed and self._hear():  # said before its end, which the parent's message may bring first
            pass
        self._close()
        if exit.cancelled():
            return
        ended = exit.result()
        if self._turn and not self._turn.exit.done():
            cpu = max(ended.cpu_seconds - self._spent, 0.0)
            self._turn.end(Exited(ended.code, ended.signal, cpu, ended.peak_memory_kib, ended.oom, ended.time))

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            if self._ends:
                self._ends.close()
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            self._line.close()
            self._has_ended(self, self._why or 'ended')


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
