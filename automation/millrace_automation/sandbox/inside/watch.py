"""Stands in for control groups where there are none: looks at a run's processes now and then, so that all together keep a limit."""

import contextlib
import os
import time
from collections.abc import Iterator

PERIOD = 0.1  # seconds between two looks: what a run may take in it is also what it may take too much
_CALM_PERIOD = 0.5  # between two exact looks while there is room
_PAGE = os.sysconf('SC_PAGE_SIZE')


class Watch:
    def __init__(self, has_namespace: bool, memory: bool, processes: bool):
        self._descendants = _namespace if has_namespace else _children
        self._memory = memory
        self._processes = processes
        self._limits: tuple[int, int] | None = None
        self._exact_time = 0.0

    @property
    def is_running(self) -> bool:
        return self._limits is not None

    def begin(self, memory_mib: int, processes: int) -> None:
        if self._memory or self._processes:
            self._limits = (memory_mib << 20, processes)

    def rest(self) -> None:
        """There is no run."""
        self._limits = None

    def excess(self) -> str | None:
        """`memory` or `processes`: what this process's descendants have too much of."""
        if not self._limits:
            return None
        memory, most = self._limits
        found = list(self._descendants())
        if self._processes and sum(tasks for _, tasks in found) > most:
            return 'processes'
        if self._memory and sum(_resident(pid) for pid, _ in found) > memory and self._exceeds([pid for pid, _ in found], memory):
            return 'memory'
        return None

    def _exceeds(self, pids: list[int], memory: int) -> bool:
        """Pages that several processes share count once here: a look that is exact, and dear."""
        now = time.monotonic()
        if now < self._exact_time:
            return False
        used = sum(_own_memory(pid) for pid in pids)
        self._exact_time = now if used > memory * 0.8 else now + _CALM_PERIOD
        return used > memory


def _namespace() -> Iterator[tuple[int, int]]:
    """Pid and number of threads of everything in the process namespace but its first process."""
    for name in os.listdir('/proc'):
        if name.isdigit() and name != '1':
            with contextlib.suppress(OSError):
                yield int(name), len(os.listdir(f'/proc/{name}/task'))


def _children() -> Iterator[tuple[int, int]]:
    """The same for this process's descendants, whatever else there is."""
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            tasks = os.listdir(f'/proc/{pid}/task')
            if pid != os.getpid():
                yield pid, len(tasks)
            for task in tasks:
                waiting += children_of(pid, task)


def children_of(pid: int | str, task: int | str) -> list[int]:
    try:
        with open(f'/proc/{pid}/task/{task}/children') as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _resident(pid: int) -> int:
    try:
        with open(f'/proc/{pid}/statm') as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _own_memory(pid: int) -> int:
    """Its share of memory that no file backs. A process that forbids to look counts with all that it has."""
    try:
        with open(f'/proc/{pid}/smaps_rollup') as file:
            sizes = dict(line.split(':', 1) for line in file if ':' in line and line.endswith('kB\n'))
        return sum(int(sizes.get(name, '0 kB').split()[0]) for name in ('Pss_Anon', 'Pss_Shmem')) * 1024
    except (OSError, ValueError):
        return _resident(pid)
