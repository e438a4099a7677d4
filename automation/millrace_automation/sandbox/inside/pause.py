"""The first process of a sandbox without a keeper. It sleeps until it is killed, and its end is the end of everything in the sandbox.

It has the parent's memory and descriptors instead of copies of them and runs one function of the C library, so it costs next to nothing;
an init that is forked costs as much as the script. That is safe because nothing reaches it: all signals are blocked but the one that
the parent ends it with, it is root outside of the script's user namespace, and it is not dumpable. Orphans that it adopts vanish when
they end, since it ignores SIGCHLD as the parent does.
"""

import ctypes
import mmap
import resource
import signal

from .system import CLONE_NEWNS, CLONE_NEWPID, clone_pausing

_STACK_BYTES = 16 * 1024


class Pauses:
    """A stack for each slot. What is forked does not get them."""

    def __init__(self, most: int):
        self._memory = mmap.mmap(-1, most * _STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_DONTFORK)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def start(self, number: int) -> tuple[int, int]:
        """In a process namespace of its own, of which it is the first, with a copy of the mounts. Its pid and pidfd."""
        return clone_pausing(CLONE_NEWPID | CLONE_NEWNS, self._start + (number + 1) * _STACK_BYTES)


def prepare() -> None:
    """What the first processes inherit from this one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
