"""Limits of the process itself. They hold for every process apart, also without any privilege.

The limits of a run are a mapping with `memory_mib`, `processes`, `cpu_seconds` and `disk_mib`.
"""

import resource
from collections.abc import Mapping

_MIB = 1 << 20
DATA_HEADROOM_MIB = 128  # thread stacks and arenas that are reserved and not used
_RESERVE_MIB = 16  # between soft and hard limit: what it takes to report that memory ran out
_ADDRESS_HEADROOM_MIB = 1024
_MOST_SECONDS = 1 << 30


def set_fixed() -> None:
    """Those that no run may choose."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_MEMLOCK, _MIB),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _set(kind, value)


def set_for_run(limits: Mapping[str, int], process_slots: int, is_kept: bool) -> None:
    """`process_slots` is how many processes and threads the user that runs this may have. The processor time of a process that is kept is
    raised for each run, which a hard limit would not allow: init sees to that one.

    RLIMIT_DATA is what a script meets as MemoryError: unlike RLIMIT_AS it leaves out address space that is only reserved, which
    libraries with thread pools take a lot of. Both hold for each process; all together are held by a cgroup or the watch.
    """
    data = limits['memory_mib'] + DATA_HEADROOM_MIB
    _set(resource.RLIMIT_DATA, data * _MIB, (data + _RESERVE_MIB) * _MIB)
    _set(resource.RLIMIT_AS, (data + limits['memory_mib'] + _ADDRESS_HEADROOM_MIB) * _MIB)
    _set(resource.RLIMIT_FSIZE, limits['disk_mib'] * _MIB)
    _set(resource.RLIMIT_CPU, limits['cpu_seconds'], _MOST_SECONDS if is_kept else limits['cpu_seconds'] + 1)
    _set(resource.RLIMIT_NPROC, process_slots)


def release_reserve() -> None:
    """Lets a script that ran out of memory say so."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _set(kind: int, soft: int, hard: int | None = None) -> None:
    """Never above what holds already."""
    _, ceiling = resource.getrlimit(kind)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))
