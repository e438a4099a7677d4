"""Tries to reach what is outside. Returns for each attempt whether it was refused."""

import colorsys  # any module that is not loaded yet: what cannot be imported here cannot be by a script either
import contextlib
import ctypes
import os
import platform
import socket
import stat
from collections.abc import Callable, Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_IS_ARM = platform.machine() == 'aarch64'
_NEW_USER = 0x10000000
_SIGCHLD = 17
# what the kernel is asked for: numbers on x86-64 and aarch64, arguments. None of them would do harm if it were not refused
_CALLS = {
    'mount a file system': (165, 40, b'none', b'.', b'tmpfs', 0, None),
    'unmount the root': (166, 39, b'/nowhere', 0),
    'change the root': (161, 51, b'.'),
    'swap the root': (155, 41, b'.', b'.'),
    'make a user namespace': (272, 97, _NEW_USER),
    'fork into a user namespace': (56, 220, _NEW_USER | _SIGCHLD, 0, 0, 0, 0),
    'fork in ways that the filter cannot see': (435, 435, None, 0),
    'enter a namespace': (308, 268, 0, 0),
    'open a mount tree': (428, 428, -100, b'/', 0),
    'open a file system': (430, 430, b'tmpfs', 0),
    'trace a process': (101, 117, 0, 0, 0, 0),
    'read the memory of a process': (310, 270, 1, None, 0, None, 0, 0),
    'take a descriptor of a process': (438, 438, 0, 0, 0),
    'load a program into the kernel': (321, 280, 0, None, 0),
    'load a module into the kernel': (313, 273, 0, b'', 0),
    'watch the kernel': (298, 241, None, 0, -1, -1, 0),
    'handle page faults': (323, 282, 0),
    'use io_uring': (425, 425, 1, bytes(120)),
    'use the key ring': (250, 219, 0, -3, 0),
    'open a file by its handle': (304, 265, -100, None, 0),
    'set the clock': (227, 112, 0, None),
    'set the host name': (170, 161, b'probe', 5),
    'read the kernel log': (103, 116, 10, None, 0),
    'take memory in a file without a name': (319, 279, b'probe', 0),
    'take shared memory that outlives its process': (29, 194, 0, 4096, 0o1600),
}
_SOCKETS = {'internet': (2, 1, 0), 'IPv6': (10, 2, 0), 'local': (1, 1, 0), 'kernel': (16, 3, 0), 'packet': (17, 3, 768), 'raw': (2, 3, 1)}
_OWN_VARIABLES = {'PATH', 'HOME', 'TMPDIR', 'LANG', 'TZ', 'LC_CTYPE'}


def main(tier: int, server: int, parent: int, package: str, home: str) -> dict[str, bool]:
    outside = [pid for pid in (server, parent) if pid not in _namespace()]
    environments = [f'/proc/{pid}/environ' for pid in (*outside, os.getppid())]
    homes = {home, '/root', '/home'} - {'/', os.getcwd()}
    found = {
        'read /etc/shadow': _is_refused(lambda: _read('/etc/shadow')),
        'read the code of the server': _is_refused(lambda: _read(f'{package}/__init__.py')),
        'read devices of the kernel': all(_is_refused(lambda path=path: _read(path)) for path in ('/dev/kmsg', '/proc/kcore', '/dev/mem')),
        'read the environment of other processes': all(_is_refused(lambda path=path: _read(path)) for path in environments),
        'list the root folder': _is_refused(lambda: os.listdir('/')),
        'list home folders': all(_is_refused(lambda path=path: os.listdir(path)) for path in homes),
    }
    found['see other processes'] = not _visible()
    if tier >= 2:
        found['count processes with the machine'] = os.getpid() == 2
        found['share the name of the machine'] = os.uname().nodename == 'sandbox'
    found['see the network of the machine'] = _sees_no_network()
    found['signal the server'] = all(_is_refused(lambda pid=pid: os.kill(pid, 0)) for pid in outside)
    for kind, arguments in _SOCKETS.items():
        found[f'open a socket: {kind}'] = _is_refused(lambda arguments=arguments: socket.socket(*arguments).close())
    for name, call in _CALLS.items():
        found[name] = _is_call_refused(call[_IS_ARM], call[2:])
    found['write outside its folder'] = all(_is_refused(lambda path=path: _write(path)) for path in _folders(package))
    found['change a system file'] = _is_refused(lambda: os.close(os.open('/usr/bin/env', os.O_WRONLY)))
    found['make a device'] = _is_refused(lambda: os.mknod('device', stat.S_IFCHR | 0o600, os.makedev(1, 1)))
    found['hold capabilities'] = _has_no_capabilities()
    found['gain rights by a program'] = _libc.prctl(39, 0, 0, 0, 0) == 1  # PR_GET_NO_NEW_PRIVS
    found['inherit descriptors'] = not [number for number in range(4, 4096) if not _is_refused(lambda number=number: os.fstat(number))]
    found['inherit environment variables'] = set(os.environ) <= _OWN_VARIABLES
    found['run without its libraries'] = colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    return found


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _is_call_refused(number: int, arguments: Iterable[int | bytes | None]) -> bool:
    result = _libc.syscall(number, *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    if result == 0 and number == (220 if _IS_ARM else 56):
        os._exit(0)  # the fork that should not be
    return result == -1 and ctypes.get_errno() in (1, 38)  # EPERM, ENOSYS: by the filter, not for what was asked


def _namespace() -> set[int]:
    """The numbers that mean this run's own processes: in a namespace of its own it is the second one."""
    return {1, 2} if os.getpid() == 2 else set()


def _visible() -> list[str]:
    with contextlib.suppress(OSError):
        return [name for name in os.listdir('/proc') if name.isdigit() and int(name) not in {os.getpid(), *_namespace()}]
    return []


def _read(path: str) -> None:
    with open(path, 'rb') as file:
        file.read(1)


def _sees_no_network() -> bool:
    try:
        with open('/proc/self/net/dev') as file:
            return [line.split(':')[0].strip() for line in file if ':' in line] == ['lo']
    except OSError:
        return True


def _folders(package: str) -> list[str]:
    known = ['/', '/tmp', '/usr', '/usr/lib', '/etc', '/var/tmp', '/dev', '/dev/shm', '/proc/self', '/site', package]
    return [path for path in known if os.path.realpath(path) != os.path.realpath('.')]


def _write(folder: str) -> None:
    path = f'{folder}/millrace-probe-{os.getpid()}'
    with open(path, 'w'):
        os.unlink(path)


def _has_no_capabilities() -> bool:
    head, sets = ctypes.create_string_buffer(b'\x22\x05\x08\x20' + bytes(4)), ctypes.create_string_buffer(24)
    return _libc.syscall(90 if _IS_ARM else 125, head, sets) == 0 and not any(sets.raw)
