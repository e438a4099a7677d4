"""The process that connects for all runs of a server: `python -m millrace_automation.server.egress_process DESCRIPTOR [NETWORK ...]`.

The descriptor is the control socket, which keeps packets apart. From the server: `{"open": id, "policy"}` with the gate of a run,
`{"close": id}`. To it: `{"id", "level", "text"}` for the run's log, `{"closed": id}`. It ends when the server does.
"""

import asyncio
import json
import os
import resource
import socket
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from .egress_gate import Gate, Tell
from .egress_rules import Network, Policy, networks

PACKET_BYTES = 256 * 1024
_NICE = 5  # what it carries never delays the server
_RESOLVERS = 64


class _Process:
    def __init__(self, control: socket.socket, inner: list[Network]):
        self._control = control
        self._inner = inner
        self._gates: dict[int, Gate] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        control.setblocking(False)

    async def run(self) -> None:
        self._loop.add_reader(self._control.fileno(), self._hear)
        await self._over.wait()

    def _hear(self) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b'', []
        if not packet:
            self._over.set()
            return
        match json.loads(packet):
            case {'open': int(id), 'policy': dict(policy)}:
                endpoint = socket.socket(fileno=descriptors[0])
                self._gates[id] = Gate(endpoint, Policy.read(policy), self._inner, self._teller(id))
            case {'close': int(id)}:
                task = self._loop.create_task(self._close(id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _teller(self, id: int) -> Tell:
        return lambda level, text: self._send({'id': id, 'level': level, 'text': text})

    async def _close(self, id: int) -> None:
        if gate := self._gates.pop(id, None):
            await gate.close()
        self._send({'closed': id})

    def _send(self, message: dict[str, object]) -> None:
        """In order; what the server does not take at once waits, and is bounded by what each run may tell."""
        self._backlog.append(json.dumps(message).encode())
        self._flush()

    def _flush(self) -> None:
        while self._backlog:
            try:
                self._control.send(self._backlog[0])
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:
                self._over.set()
                return
            self._backlog.popleft()
        self._loop.remove_writer(self._control.fileno())


async def _run(descriptor: int, inner: list[Network]) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_RESOLVERS))
    await _Process(socket.socket(fileno=descriptor), inner).run()
    os._exit(0)  # a name that is being resolved is not waited for


if __name__ == '__main__':
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for each connection of all runs
    asyncio.run(_run(int(sys.argv[1]), networks(sys.argv[2:])))
