"""The script's side of its connection to the supervisor: a socket that keeps packets apart.

A packet is whole or not there at all, whatever signal comes or however many of the script's processes write. Its head: kind, flags, and
how many bytes the script's standard output and standard error had before it, so that the supervisor can put lines and log entries in
the order in which they were written. The supervisor believes none of it.
"""

import json
import os
import resource
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from . import report
from .masking import Masker
from .streams import Unbuffered

DESCRIPTOR = 3
HEAD = struct.Struct('<cBQQ')
LOG, PROGRESS, RETURNED, RAISED, PARSED, USED = b'L', b'P', b'R', b'E', b'M', b'U'
USAGE = struct.Struct('<dQ')  # seconds of processor time, peak of memory in KiB
ARTIFACT, ARTIFACT_DATA = b'A', b'D'
FIRST, MORE = 1, 2
PART_BYTES = 60_000
_FIRST_BYTES = PART_BYTES + 64
_OUTPUT_BYTES = 1 << 20


class Channel:
    """Made before there is a connection, by the parent; `own` makes it the calling process's."""

    def __init__(self, output: Unbuffered, error: Unbuffered):
        self.given: dict[str, Any] = {}
        """The input of the run."""
        self.secrets: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        """As JSON."""
        self._mask: Callable[[str], str] = str
        self.tells_usage = True
        """Init tells it for a process that is kept."""
        self._streams = (output, error)
        self._lock = threading.Lock()
        self._owner = 0
        os.register_at_fork(after_in_child=self._renew_lock)

    def own(self) -> None:
        self._owner = os.getpid()

    @property
    def is_own(self) -> bool:
        return os.getpid() == self._owner

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it when the process was forked

    def give(self, request: dict[str, Any]) -> None:
        """The secrets and variables that the run may read. No secret leaves through here as it is."""
        self.secrets = request.get('secrets', {})
        self.variables = request.get('variables', {})
        self._mask = Masker(self.secrets.values()).text if self.secrets else str

    def renew(self) -> None:
        """New descriptors stand in the place of the old ones."""
        for stream in self._streams:
            stream.count = 0

    def receive_alone(self) -> dict:
        """The request: its length, a line end, its bytes."""
        return self._rest(os.read(DESCRIPTOR, _FIRST_BYTES))

    def receive(self) -> tuple[dict, list[int]]:
        """The request, and the descriptors that came with it."""
        endpoint = socket.socket(fileno=DESCRIPTOR)
        try:
            head, descriptors, _, _ = socket.recv_fds(endpoint, _FIRST_BYTES, 1)
        finally:
            endpoint.detach()
        return self._rest(head), descriptors

    def _rest(self, first: bytes) -> dict:
        if not first:
            os._exit(0)  # nobody needs this child
        length, _, data = first.partition(b'\n')
        while len(data) < int(length):
            data += os.read(DESCRIPTOR, PART_BYTES)
        return json.loads(data)

    def send(self, kind: bytes, body: bytes) -> None:
        """Never raises for a supervisor that does not listen any longer."""
        parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)] or [b'']
        with self._lock:
            for number, part in enumerate(parts):
                flags = (FIRST if number == 0 else 0) | (MORE if number < len(parts) - 1 else 0)
                try:
                    os.write(DESCRIPTOR, HEAD.pack(kind, flags, *(stream.count for stream in self._streams)) + part)
                except OSError:
                    return

    def log(self, level: str, text: str) -> None:
        self.send(LOG, level.encode(errors='replace')[:32] + b'\0' + text.encode(errors='replace'))

    def artifact(self, message: bytes) -> None:
        self.send(ARTIFACT, message)

    def artifact_data(self, numbered: bytes) -> None:
        self.send(ARTIFACT_DATA, numbered)

    def hear(self, wait: bool) -> bytes | None:
        """A packet from the supervisor: empty when it is gone, None when there is none and none is waited for."""
        endpoint = socket.socket(fileno=DESCRIPTOR)
        try:
            return endpoint.recv(_FIRST_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b''
        finally:
            endpoint.detach()

    def progress(self, fraction: float, message: str) -> None:
        self.send(PROGRESS, json.dumps([fraction, self._mask(message)[:500]]).encode())

    def returned(self, output: bytes) -> bool:
        """Whether it was small enough."""
        if len(output) > _OUTPUT_BYTES:
            self.raised('OutputTooLarge', f'The output has {len(output)} bytes of JSON, {_OUTPUT_BYTES} are allowed.', '')
            return False
        if self.is_own:  # a process that the script forked does not speak for it
            self._used()
            self.send(RETURNED, output)
        return True

    def raised(self, kind: str, message: str, traceback: str) -> None:
        if self.is_own:
            message, traceback = self._mask(message), report.shortened(self._mask(traceback))
            self._used()
            body = {'type': kind[:200], 'message': message[:8000], 'traceback': traceback[-32_000:]}
            self.send(RAISED, json.dumps(body, ensure_ascii=True).encode())

    def _used(self) -> None:
        """Lets the verdict stand before the process has ended, which takes longer than many a run."""
        if self.tells_usage:
            own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
            self.send(USED, USAGE.pack(seconds, max(own.ru_maxrss, children.ru_maxrss)))
