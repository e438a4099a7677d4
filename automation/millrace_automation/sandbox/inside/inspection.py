"""Looks at the script's process from outside, between two runs: whether anything of a run is left, and whether it is still shut in as it was.

Nothing here believes the process. It is init that looks, which the script cannot reach; where /proc does not tell enough, no process is
kept.
"""

import os
import resource
import time
from collections.abc import Mapping

from . import tree
from .report import SCRIPT
from .watch import children_of

_FIXED = (b'Uid', b'Gid', b'Groups', b'NoNewPrivs', b'Seccomp', b'Seccomp_filters', b'TracerPid', b'Umask', b'Cpus_allowed')
_CAPABILITIES = (b'CapInh', b'CapPrm', b'CapEff', b'CapBnd', b'CapAmb')
_SIGNALS = (b'SigBlk', b'SigIgn', b'SigCgt')
_SIZES = (b'RssAnon', b'RssShmem', b'VmHWM')
_ONE_THREAD = b'Threads:\t1'
_NAMESPACES = ('cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts')
_KINDS = sorted({value for name, value in vars(resource).items() if name.startswith('RLIMIT_')} - {resource.RLIMIT_CPU})
_POLICY, _NICE, _CHILDREN_TIME = 38, 16, slice(13, 15)  # fields of /proc/PID/stat behind the name
_TICKS = os.sysconf('SC_CLK_TCK')
_LEAVING_SECONDS = 0.05
_FILES_BYTES = 1 << 20  # of the folder when nothing but the source is in it


class Inspection:
    """Made before the user's code runs. Raises OSError where /proc does not tell enough."""

    def __init__(self, pid: int, begin: int, has_namespaces: bool, limits: Mapping[str, int]):
        """`begin` is the descriptor by which the script speaks with init."""
        self._pid = pid
        self._has_namespaces = has_namespaces
        self._work = os.getcwd()
        self._memory_kib = limits['memory_mib'] * 1024
        self._descriptors = {'0', '1', '2', '3', str(begin)}
        self._kept = (f'/proc/{pid}/fd/0', f'/proc/{pid}/fd/{begin}')
        self._layout = _layout(self._lines())
        self._fixed = self._facts(self._lines(), _stat(pid))
        self._signals: list[bytes] | None = None
        self._peak_kib = 0
        self._children_time = 0.0
        self._anonymous_kib = 0
        self._spent = 0.0
        self._children_spent = 0.0
        self.reset_peak()

    def fault(self) -> str | None:
        """What keeps the process from being used again, in a word. None: nothing."""
        try:
            return self._fault(self._settled(), _stat(self._pid))
        except (OSError, IndexError, ValueError):
            return 'hidden'  # it does not let itself be looked at, or it is gone

    def _lines(self) -> list[bytes]:
        """What the kernel says of the process. A process has the same lines as long as it lives; those that are compared say what they are."""
        return _read(f'/proc/{self._pid}/status').split(b'\n')

    def _settled(self) -> list[bytes]:
        """Python takes a thread for ended a moment before the kernel does."""
        end = time.monotonic() + _LEAVING_SECONDS
        while (lines := self._lines())[self._layout[b'Threads']] != _ONE_THREAD and time.monotonic() < end:
            time.sleep(0.001)
        return lines

    def _fault(self, lines: list[bytes], fields: list[bytes]) -> str | None:
        if lines[self._layout[b'Threads']] != _ONE_THREAD:
            return 'threads'
        if self._processes() != 1:
            return 'processes'
        if set(os.listdir(f'/proc/{self._pid}/fd')) != self._descriptors:
            return 'descriptors'
        if self._facts(lines, fields) != self._fixed:
            return 'state'
        signals = [lines[self._layout[name]] for name in _SIGNALS]
        self._signals = self._signals or signals
        if signals != self._signals or _timers(self._pid):
            return 'signals'
        if os.listdir(self._work) != [SCRIPT] or self._files_bytes() > _FILES_BYTES:
            return 'files'
        anonymous, shared, self._peak_kib = (self._kib(lines, name) for name in _SIZES)
        self._children_time = sum(map(int, fields[_CHILDREN_TIME])) / _TICKS
        return 'memory' if self._is_too_large(anonymous + shared) else None

    def _kib(self, lines: list[bytes], name: bytes) -> int:
        said, _, value = lines[self._layout[name]].partition(b':')
        if said != name:
            raise ValueError
        return int(value.split()[0])

    def _facts(self, lines: list[bytes], fields: list[bytes]) -> list[object]:
        """What must be as it was before any code of the user ran."""
        return [
            [lines[self._layout[name]] for name in (*_CAPABILITIES, *_FIXED)],
            [resource.prlimit(self._pid, kind) for kind in _KINDS],
            resource.prlimit(self._pid, resource.RLIMIT_CPU)[1],
            [os.readlink(path) for path in self._kept],
            [os.readlink(f'/proc/{self._pid}/{name}') for name in ('cwd', 'root', *(f'ns/{kind}' for kind in _NAMESPACES))],
            (fields[_NICE], fields[_POLICY]),
        ]

    def _processes(self) -> int:
        """In the sandbox, beside init."""
        if self._has_namespaces:
            return sum(name.isdigit() for name in os.listdir('/proc')) - 1
        return len(children_of('self', os.getpid())) + len(children_of(self._pid, self._pid))

    def _files_bytes(self) -> int:
        """Also of files without a name. Only where the folder is a file system of its own."""
        if not self._has_namespaces:
            return 0
        found = os.statvfs(tree.WORK)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _is_too_large(self, held: int) -> bool:
        """After its first run a process may hold half its limit; from then on, an eighth more than that run left."""
        if not self._anonymous_kib:
            self._anonymous_kib = held
            return held > self._memory_kib // 2
        return held > self._anonymous_kib + self._memory_kib // 8

    # what a run used

    def processor_seconds(self) -> float:
        """Of the process, since it began."""
        return time.clock_gettime(clock_of(self._pid))

    def account(self) -> tuple[float, int]:
        """Seconds of processor time, its children's included, and the most memory in KiB, since the last call. To be asked when `fault` has looked."""
        spent = self.processor_seconds()
        used = spent - self._spent + self._children_time - self._children_spent
        self._spent, self._children_spent = spent, self._children_time
        self.reset_peak()
        return max(used, 0.0), self._peak_kib

    def reset_peak(self) -> None:
        descriptor = os.open(f'/proc/{self._pid}/clear_refs', os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b'5')
        finally:
            os.close(descriptor)


def clock_of(pid: int) -> int:
    """The clock of a process's own time, as clock_getcpuclockid makes it."""
    return ~pid << 3 | 2


def _layout(lines: list[bytes]) -> dict[bytes, int]:
    """In which line each of those stands that are looked at. Raises OSError where one is missing."""
    numbers = {line.partition(b':')[0]: number for number, line in enumerate(lines)}
    try:
        return {name: numbers[name] for name in (b'Threads', *_CAPABILITIES, *_FIXED, *_SIGNALS, *_SIZES)}
    except KeyError as missing:
        raise OSError(f'/proc does not tell {missing}') from None


def _stat(pid: int) -> list[bytes]:
    return _read(f'/proc/{pid}/stat').rpartition(b') ')[2].split()


def _timers(pid: int) -> bytes:
    try:
        return _read(f'/proc/{pid}/timers')
    except FileNotFoundError:
        return b''  # a kernel without this file


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)
