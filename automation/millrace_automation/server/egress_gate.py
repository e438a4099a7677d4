"""The way out of one run: takes what its script asks for, decides, connects, and hands the script one end of a pair of sockets.

The script has the other end of the gate, a socket that keeps packets apart. With each request, `{"host", "port"}`, comes a socket for the
answer: `{"address"}` and the connection, or `{"refused"}` or `{"failed"}` with a sentence. Nothing of it is believed, and nothing that the
script holds is ever waited for. A name is resolved once, every address that it has is checked, and the connection goes to one of those.
"""

import array
import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

from .egress_relay import Relay, Spent
from .egress_rules import Network, Policy, may_connect, name_of

REQUEST_BYTES = 4096
_RESOLVE_SECONDS = 10.0
_RESOLVED_AT_ONCE = 4  # names of a run: other runs have names, too
_CONNECT_SECONDS = 10.0
_TOLD = 1000  # lines of a run's log; the last one counts them all
_HELP = 'a workspace admin can allow it in the egress policy (PATCH /v1/egressPolicy)'

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Tell = Callable[[str, str], None]


class _Refused(Exception):
    """It may not be reached, in a sentence that the script and its log are told."""


async def resolve(name: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Gate:
    def __init__(self, endpoint: socket.socket, policy: Policy, inner: Sequence[Network], tell: Tell, resolver: Resolve = resolve):
        """`inner` are the inner networks that the installation leaves open; `tell` is given a level and a line for the run's log."""
        self.opened = self.refused = self.sent = self.received = 0
        self._endpoint = endpoint
        self._policy = policy
        self._inner = inner
        self._tell = tell
        self._told = 0
        self._resolve = resolver
        self._resolving = asyncio.Semaphore(_RESOLVED_AT_ONCE)
        self._left = policy.max_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        endpoint.setblocking(False)
        self._loop.add_reader(endpoint.fileno(), self._hear)

    async def close(self) -> None:
        """Cuts what is open. Nothing is carried or told any more when it returns."""
        self._end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.opened or self.refused:
            text = f'{_count(self.opened, "connection")}, {self.refused} refused, {self.sent} bytes sent, {self.received} received'
            self._tell('INFO', f'Network: {text}.')

    def _end(self) -> None:
        if self._endpoint.fileno() >= 0:
            self._loop.remove_reader(self._endpoint.fileno())
            self._endpoint.close()

    def _hear(self) -> None:
        """One request at a time, so that each run has its turn."""
        try:
            packet, ancillary, _, _ = self._endpoint.recvmsg(REQUEST_BYTES, socket.CMSG_LEN(array.array('i').itemsize))
        except BlockingIOError:
            return
        except OSError:
            packet, ancillary = b'', []
        descriptors = array.array('i')
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not packet and not descriptors:
            self._end()  # of the script; an empty packet of its own counts as that
        for descriptor in descriptors:
            try:
                answer = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            self._begin(packet, answer)

    def _begin(self, packet: bytes, answer: socket.socket) -> None:
        if len(self._tasks) >= self._policy.max_connections:
            self.refused += 1
            most = self._policy.max_connections
            _answer(answer, {'refused': f'the run has {most} connections open, as many as the egress policy allows: close some'})
            return
        task = self._loop.create_task(self._serve(packet, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, packet: bytes, answer: socket.socket) -> None:
        with answer:
            try:
                host, port = _read(packet)
            except (ValueError, RecursionError):
                _answer(answer, {'refused': 'the request has no host and port'})
                return
            where = f'{host}:{port}'
            try:
                outside, address = await self._connect(host, port)
            except _Refused as fault:
                self.refused += 1
                self._say('WARNING', f'Network: refused {where}: {fault}.')
                _answer(answer, {'refused': f'{where} is not allowed: {fault}'})
                return
            except OSError as fault:
                text = _why(fault)
                self._say('WARNING', f'Network: {where} could not be reached: {text}.')
                _answer(answer, {'failed': f'{where} could not be reached: {text}'})
                return
            self.opened += 1
            self._say('INFO', f'Network: connected to {where} ({address}).')
            inside, theirs = socket.socketpair()
            inside.setblocking(False)
            with theirs:
                if not _answer(answer, {'address': address}, theirs.fileno()):
                    outside.close()
                    inside.close()
                    return
        await self._relay(inside, outside, where)

    async def _relay(self, inside: socket.socket, outside: socket.socket, where: str) -> None:
        relay = Relay(inside, outside, self._take)
        try:
            await relay.run()
        except Spent:
            self._say('WARNING', f'Network: cut {where}: the run has carried {self._policy.max_bytes >> 20} MiB, as much as it may.')
        finally:
            self.sent += relay.sent
            self.received += relay.received

    async def _connect(self, host: str, port: int) -> tuple[socket.socket, str]:
        """Raises _Refused, and OSError when nobody answers."""
        if self._left <= 0:
            raise _Refused('the run has carried as many bytes as the egress policy allows')
        name = name_of(host)
        if name is None:
            raise _Refused('rules are about names: an address in numbers cannot be reached')
        if not self._policy.allows(name, port):
            raise _Refused(f'no rule of the workspace names it; {_HELP}')
        async with asyncio.timeout(_RESOLVE_SECONDS), self._resolving:
            addresses = await self._resolve(name, port)
        if not addresses or not all(may_connect(address, self._inner) for address in addresses):
            raise _Refused('its name stands for an address that is not on the internet')
        fault: OSError = OSError('it has no address')
        for address in addresses[:4]:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await self._dial(address, port), address
            except OSError as error:
                fault = error
        raise fault

    async def _dial(self, address: str, port: int) -> socket.socket:
        """Numbers only: nothing is resolved again."""
        made = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        return made

    def _take(self, count: int) -> int:
        granted = min(count, self._left)
        self._left -= granted
        return granted

    def _say(self, level: str, text: str) -> None:
        self._told += 1
        if self._told <= _TOLD:
            self._tell(level, text)
        elif self._told == _TOLD + 1:
            self._tell('WARNING', 'Network: more follows that is not told one by one.')


def _read(packet: bytes) -> tuple[str, int]:
    match json.loads(packet):
        case {'host': str(host), 'port': int(port)} if 0 < port < 65536 and len(host) <= 255 and host.isprintable():
            return host, port
    raise ValueError


def _answer(to: socket.socket, message: dict[str, str], *descriptors: int) -> bool:
    """False when whoever asked does not listen any longer."""
    with contextlib.suppress(OSError, ValueError):
        return socket.send_fds(to, [json.dumps(message).encode()], descriptors, socket.MSG_DONTWAIT) > 0
    return False


def _why(fault: OSError) -> str:
    if isinstance(fault, TimeoutError):
        return 'no answer in time'
    if isinstance(fault, socket.gaierror) or not fault.errno:
        return fault.strerror or str(fault)
    return os.strerror(fault.errno)


def _count(number: int, what: str) -> str:
    return f'{number} {what}' if number == 1 else f'{number} {what}s'
