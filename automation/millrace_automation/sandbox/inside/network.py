"""The network of a script that may reach it: Python's sockets, with connections that come from outside.

The sandbox has no network and may open no socket. A run that reaches it has a gate: a socket to whoever connects for it, by the rules of its
workspace. Here `socket.socket` for TCP becomes the end of a pair of local sockets, which `connect` replaces by a connection that came
through the gate. Names are not resolved in here: they go through the gate as they are. So this decides nothing, and whatever a script
does to it opens no other way.

What libraries may notice: a host has its own name as its address, only TCP connections can be made, nothing can be listened to, options of
TCP are ignored, and `connect` waits although the socket is not to block (except for asyncio). Programs that a script starts have no network.
"""

import _socket
import asyncio
import contextlib
import errno
import json
import os
import socket
import sys
from asyncio.selector_events import BaseSelectorEventLoop
from ipaddress import ip_address
from typing import Any, ClassVar

from .channel import DESCRIPTOR

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_TYPES = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_ANSWER_BYTES = 4096
_PATIENCE_SECONDS = 60.0
_PORTS = {'http': 80, 'https': 443}
_ANY = ('0.0.0.0', 0)

_Address = tuple[Any, ...]
_plain_init = socket.socket.__init__
_plain_connect_later = BaseSelectorEventLoop.sock_connect


class _Gate:
    """The one of the present run."""

    endpoint: socket.socket | None = None
    is_installed = False
    peers: ClassVar[dict[int, _Address]] = {}  # by descriptor


def open_gate(request: dict[str, Any]) -> None:
    """For a run whose request says so: the gate is what comes next on the channel."""
    if not request.get('network'):
        return
    channel = socket.socket(fileno=DESCRIPTOR)
    try:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    finally:
        channel.detach()
    if descriptors:
        os.set_inheritable(descriptors[0], False)
        _Gate.endpoint = socket.socket(fileno=descriptors[0])
        _install()


def close_gate() -> None:
    if _Gate.endpoint:
        _Gate.endpoint.close()
        _Gate.endpoint = None
        _Gate.peers.clear()


def _install() -> None:
    if _Gate.is_installed:
        return
    _Gate.is_installed = True
    _trust()
    for function in (__init__, connect, connect_ex, setsockopt, getsockopt, getpeername, getsockname):
        setattr(socket.socket, function.__name__, function)
    socket.getaddrinfo = getaddrinfo
    socket.gethostbyname = socket.gethostbyname_ex = gethostbyname
    BaseSelectorEventLoop.sock_connect = sock_connect


def _trust() -> None:
    """The authorities that sign certificates: those that came with the libraries, since the machine's are not in here."""
    for folder in sys.path:
        path = f'{folder}/certifi/cacert.pem'
        if os.path.isfile(path):
            os.environ['SSL_CERT_FILE'] = path
            return


# the gate


def _ask(address: _Address) -> socket.socket:
    """The end at which the answer comes."""
    host, port = address[:2]
    text = host.decode() if isinstance(host, bytes | bytearray) else host
    if _Gate.endpoint is None:
        raise OSError(errno.ENETUNREACH, 'The run that had the network is over')
    ours, theirs = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answer = socket.socket(fileno=ours.detach())
    try:
        socket.send_fds(_Gate.endpoint, [json.dumps({'host': text, 'port': port}).encode()], [theirs.fileno()])
    except OSError:
        answer.close()
        raise OSError(errno.ENETUNREACH, 'The way to the network is gone') from None
    finally:
        theirs.close()
    return answer


def _finish(answer: socket.socket, connecting: socket.socket, address: _Address) -> None:
    """Takes the connection; raises what the answer says instead."""
    packet, descriptors, _, _ = socket.recv_fds(answer, _ANSWER_BYTES, 1)
    told = json.loads(packet) if packet else {'failed': 'The way to the network is gone'}
    if not descriptors:
        if 'refused' in told:
            raise PermissionError(errno.EACCES, told['refused'])
        raise ConnectionError(errno.EHOSTUNREACH, told.get('failed', ''))
    os.dup2(descriptors[0], connecting.fileno(), inheritable=False)
    os.close(descriptors[0])
    connecting.settimeout(connecting.gettimeout())  # or the new descriptor would not have it
    _Gate.peers[connecting.fileno()] = (told['address'], *address[1:])


def _begin(connecting: socket.socket, address: _Address) -> socket.socket:
    if connecting.fileno() in _Gate.peers:
        raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
    return _ask(address)


# what replaces the methods of socket.socket


def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
    is_stream = type == -1 or type & ~_TYPES == socket.SOCK_STREAM
    if fileno is not None or family not in (-1, *_FAMILIES) or not is_stream:
        _plain_init(self, family, type, proto, fileno)
        return
    end, other = _socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    other.close()
    descriptor = end.detach()
    _Gate.peers.pop(descriptor, None)
    _plain_init(self, socket.AF_INET if family == -1 else family, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)
    if type != -1 and type & socket.SOCK_NONBLOCK:
        self.setblocking(False)


def connect(self, address: Any, /) -> None:
    if self.family not in _FAMILIES:
        _socket.socket.connect(self, address)
        return
    with _begin(self, address) as answer:
        answer.settimeout(self.gettimeout() or _PATIENCE_SECONDS)
        _finish(answer, self, address)


def connect_ex(self, address: Any, /) -> int:
    if self.family not in _FAMILIES:
        return _socket.socket.connect_ex(self, address)
    try:
        self.connect(address)
    except TimeoutError:
        return errno.EAGAIN
    except OSError as fault:
        return fault.errno or errno.EHOSTUNREACH
    return 0


def setsockopt(self, level: int, *rest: Any) -> None:
    if self.family not in _FAMILIES or level == socket.SOL_SOCKET:
        _socket.socket.setsockopt(self, level, *rest)


def getsockopt(self, level: int, *rest: Any) -> int | bytes:
    if self.family not in _FAMILIES or level == socket.SOL_SOCKET:
        return _socket.socket.getsockopt(self, level, *rest)
    return 0 if len(rest) < 2 else bytes(rest[1])


def getpeername(self) -> Any:
    if self.family not in _FAMILIES:
        return _socket.socket.getpeername(self)
    if self.fileno() not in _Gate.peers:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    return _Gate.peers[self.fileno()]


def getsockname(self) -> Any:
    return _ANY if self.family in _FAMILIES else _socket.socket.getsockname(self)


async def sock_connect(self: BaseSelectorEventLoop, sock: socket.socket, address: Any) -> None:
    if sock.family not in _FAMILIES:
        await _plain_connect_later(self, sock, address)
        return
    with _begin(sock, address) as answer:
        answered: asyncio.Future[None] = self.create_future()
        self.add_reader(answer.fileno(), lambda: answered.done() or answered.set_result(None))
        try:
            await answered
        finally:
            self.remove_reader(answer.fileno())
        _finish(answer, sock, address)


# what replaces the functions of the module


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
    """The name itself, as the one address that it has in here."""
    name = host.decode() if isinstance(host, bytes) else host
    if not isinstance(name, str) or not name or (type and type & ~_TYPES != socket.SOCK_STREAM):
        raise socket.gaierror(socket.EAI_NONAME, 'Only names of hosts to connect to can be looked up in a sandbox')
    if flags & socket.AI_NUMERICHOST and not _is_number(name):
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
    number = int(_PORTS.get(port, port) or 0)
    known = name if name.isascii() else name.encode('idna').decode()
    address = (known, number, 0, 0) if family == socket.AF_INET6 else (known, number)
    return [(socket.AddressFamily(family or socket.AF_INET), socket.SOCK_STREAM, socket.IPPROTO_TCP, '', address)]


def gethostbyname(hostname: str, /) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, f'In a sandbox the name {hostname!r} can be connected to, but has no address')


def _is_number(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ip_address(name)
        return True
    return False
