"""Control groups, version 1 or 2, below the server's own: the memory and the processes of a run together.

One folder for each slot, made once and used again: in version 1 joining a group may wait tens of milliseconds in the kernel, so a
child joins while it is prepared. Where a controller is not there or not ours to write, its limit is somebody else's business.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .system import write_file

_MIB = 1 << 20
_LEAST_MIB = 32  # what a child has in use before it begins
_PREFIX = 'millrace-'


@dataclass
class Usage:
    peak_kib: int = 0
    kills: int = 0


@dataclass
class Cgroups:
    """`folders` has one folder for each controller found; in version 2 they are the same one."""

    version: int = 0
    folders: dict[str, str] = field(default_factory=dict)
    _limits: dict[int, tuple[Mapping[str, int], int]] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)  # those that each run needs stay open

    def paths(self, slot: int) -> list[str]:
        return [f'{folder}/{slot}' for folder in dict.fromkeys(self.folders.values())]

    def entrances(self, slot: int) -> list[int]:
        """Descriptors: a process that writes 0 to one of them joins."""
        return [self._file(f'{path}/cgroup.procs', os.O_WRONLY) for path in self.paths(slot)]

    def prepare(self, slot: int, limits: Mapping[str, int], keepers: int) -> None:
        """Makes the slot's groups as a new child finds them. `keepers` of its processes are not the run's."""
        if slot not in self._limits:
            for path in self.paths(slot):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path)
        self.limit(slot, limits, keepers)
        if memory := self.folders.get('memory'):  # forgets the highest use of the run before
            name = 'memory.max_usage_in_bytes' if self.version == 1 else 'memory.peak'
            try:
                os.pwrite(self._file(f'{memory}/{slot}/{name}', os.O_RDWR), b'0', 0)
            except OSError:
                pass  # this kernel cannot

    def limit(self, slot: int, limits: Mapping[str, int], keepers: int) -> None:
        if self._limits.get(slot) == (limits, keepers):
            return
        if memory := self.folders.get('memory'):
            self._limit_memory(f'{memory}/{slot}', max(limits['memory_mib'], _LEAST_MIB) * _MIB)
        if pids := self.folders.get('pids'):
            _put(f'{pids}/{slot}/pids.max', str(limits['processes'] + keepers))
        self._limits[slot] = (limits, keepers)

    def _limit_memory(self, group: str, size: int) -> None:
        names = ('memory.limit_in_bytes', 'memory.memsw.limit_in_bytes') if self.version == 1 else ('memory.max',)
        is_raised = self._bytes(f'{group}/{names[0]}') < size
        for name in reversed(names) if is_raised else names:  # memory and swap together are never below memory
            _put(f'{group}/{name}', str(size), optional='memsw' in name)
        _put(f'{group}/memory.swap.max', '0', optional=True)

    def usage(self, slot: int) -> Usage:
        """What the kernel counted: the highest use in KiB (0: unknown) and how many processes it killed for memory, ever."""
        if not (memory := self.folders.get('memory')):
            return Usage()
        peak, events = ('memory.max_usage_in_bytes', 'memory.oom_control') if self.version == 1 else ('memory.peak', 'memory.events')
        _, _, kills = self._read(f'{memory}/{slot}/{events}').partition(b'oom_kill ')
        return Usage(int(self._read(f'{memory}/{slot}/{peak}', os.O_RDWR) or 0) // 1024, int(kills.split(b'\n')[0] or 0))

    def is_empty(self, slot: int) -> bool:
        """Whether no process is left in it, as far as that is counted."""
        return (pids := self.folders.get('pids')) is not None and self._read(f'{pids}/{slot}/pids.current') == b'0\n'

    def _read(self, path: str, mode: int = os.O_RDONLY) -> bytes:
        try:
            return os.pread(self._file(path, mode), 4096, 0)
        except OSError:
            return b''

    def _file(self, path: str, mode: int) -> int:
        if path not in self._files:
            try:
                self._files[path] = os.open(path, mode | os.O_CLOEXEC)
            except PermissionError:
                self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._files[path]

    def remove(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        for folder in dict.fromkeys(self.folders.values()):
            _remove_folder(folder)

    @staticmethod
    def _bytes(path: str) -> int:
        text = _get(path).strip()
        return int(text) if text.isdigit() else 0


def usable(own: dict[str, str], server: int, limits: Mapping[str, int]) -> Cgroups:
    """A controller that turns out not to be ours to set is left to the watch."""
    groups = _find(own, server)
    try:
        groups.prepare(0, limits, 1)
    except OSError:
        groups.remove()
        return Cgroups()
    return groups


def _find(own: dict[str, str], server: int) -> Cgroups:
    """Makes the folders in which slots are made. `own` says where each controller's group of this process is, '' is version 2's."""
    groups = Cgroups(1)
    for controller in ('memory', 'pids'):
        if (path := own.get(controller)) and (folder := _make_folder(path)):
            groups.folders[controller] = folder
    unified = own.get('')
    if groups.folders or not unified or not _delegates(unified, server):
        return groups
    if folder := _make_folder(unified):
        with contextlib.suppress(OSError):
            write_file(f'{folder}/cgroup.subtree_control', '+memory +pids')
            return Cgroups(2, {'memory': folder, 'pids': folder})
        _remove_folder(folder)
    return groups


def own_groups(cgroup: str, mountinfo: str) -> dict[str, str]:
    """Controller to folder, from the texts of /proc/self/cgroup and /proc/self/mountinfo."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(' - ')
        kind, _, options = rest.split(' ', 2)
        root, point = fields.split()[3:5]
        if kind == 'cgroup2':
            mounts.setdefault('', (root, point))
        elif kind == 'cgroup':
            for controller in options.split(','):
                mounts.setdefault(controller, (root, point))
    found = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(':', 2)
        for controller in controllers.split(','):
            if controller in mounts:
                root, point = mounts[controller]
                inner = path[len(root.rstrip('/')) :] if path.startswith(root) else '/'
                found[controller] = (point + inner).rstrip('/')
    return found


def _delegates(group: str, server: int) -> bool:
    """Version 2: whether groups below get the two controllers. The kernel wants a group that has them to hold no process itself, so the
    server and this process move into a leaf; a group with other processes is not ours to change.
    """
    if not {'memory', 'pids'} <= set(_get(f'{group}/cgroup.controllers').split()):
        return False
    with contextlib.suppress(OSError):
        write_file(f'{group}/cgroup.subtree_control', '+memory +pids')
        return True
    ours = [server, os.getpid()]
    if not {int(pid) for pid in _get(f'{group}/cgroup.procs').split()} <= set(ours):
        return False
    with contextlib.suppress(OSError):
        os.makedirs(f'{group}/server', exist_ok=True)
        for pid in ours:
            write_file(f'{group}/server/cgroup.procs', str(pid))
        write_file(f'{group}/cgroup.subtree_control', '+memory +pids')
        return True
    return False


def _make_folder(group: str) -> str | None:
    _remove_left_over(group)
    folder = f'{group}/{_PREFIX}{os.getpid()}'
    try:
        os.mkdir(folder)
    except OSError:
        return None
    return folder


def _remove_left_over(group: str) -> None:
    """What a parent that was killed could not remove."""
    with contextlib.suppress(OSError):
        for name in os.listdir(group):
            if name.startswith(_PREFIX) and not os.path.exists(f'/proc/{name.removeprefix(_PREFIX)}'):
                _remove_folder(f'{group}/{name}')


def _remove_folder(folder: str) -> None:
    """Folders of control groups are removed without their files. One that still holds a process stays."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)
        os.rmdir(folder)


def _get(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ''


def _put(path: str, text: str, optional: bool = False) -> None:
    try:
        write_file(path, text)
    except OSError:
        if not optional:
            raise
