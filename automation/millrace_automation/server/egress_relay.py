"""Carries the bytes of one connection, in both directions, and counts them."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable

_PART_BYTES = 64 * 1024


class Spent(Exception):
    """The run has carried as many bytes as it may."""


class Relay:
    """Both sockets are its own from now on."""

    def __init__(self, inside: socket.socket, outside: socket.socket, take: Callable[[int], int]):
        """`take` is asked how many of so many bytes may still be carried; fewer than asked for ends it."""
        self.sent = 0
        self.received = 0
        self._inside = inside
        self._outside = outside
        self._take = take

    async def run(self) -> None:
        """Until both sides have ended, or one has failed. Raises Spent."""
        is_spent = False
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(self._inside, self._outside, is_sent=True))
                both.create_task(self._carry(self._outside, self._inside, is_sent=False))
        except* OSError:
            pass  # one side is gone: so is the other
        except* Spent:
            is_spent = True
        finally:
            self._inside.close()
            self._outside.close()
        if is_spent:
            raise Spent

    async def _carry(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        loop = asyncio.get_running_loop()
        part = bytearray(_PART_BYTES)
        view = memoryview(part)
        while count := await loop.sock_recv_into(source, part):
            granted = self._take(count)
            await loop.sock_sendall(target, view[:granted])
            if is_sent:
                self.sent += granted
            else:
                self.received += granted
            if granted < count:
                raise Spent
        if is_sent and _is_closed(source):
            raise ConnectionAbortedError  # the script does not listen either
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _is_closed(end: socket.socket) -> bool:
    """The other end of the pair is, in both directions."""
    poll = select.poll()
    poll.register(end.fileno(), 0)
    return bool(poll.poll(0))
