"""Landlock: which files a process and its descendants may touch, no TCP, no signals to or abstract sockets of others.

By the kernel's documentation, Documentation/userspace-api/landlock.rst. What an older kernel lacks is left out here; the self-test,
not the version, says whether what is left suffices.
"""

import contextlib
import os
import stat
import struct

from .system import syscall

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_TCP, _SCOPES = 3, 3  # bind and connect; abstract sockets and signals
TCP_SINCE, SCOPES_SINCE = 4, 6  # ABIs: Linux 6.7 and 6.12

RUN = _EXECUTE | _READ_FILE | _READ_DIR
READ = _READ_FILE | _READ_DIR
DEVICE = _READ_FILE | _WRITE_FILE | _READ_DIR
ALL = (1 << 16) - 1
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def version() -> int:
    """The kernel's Landlock ABI; 0 means none."""
    try:
        return syscall('landlock', _CREATE, None, 0, 1)
    except OSError:
        return 0


def _known_rights(abi: int) -> int:
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        if abi >= since:
            rights |= 1 << bit
    return rights


def _create(abi: int, files: int, tcp: int, scopes: int) -> int:
    attributes = struct.pack('=QQQ', files, tcp, scopes)
    size = 24 if abi >= SCOPES_SINCE else 16 if abi >= TCP_SINCE else 8
    return syscall('landlock ruleset', _CREATE, attributes, size, 0)


def enter(ruleset: int) -> None:
    """Needs no_new_privs."""
    try:
        syscall('landlock restrict', _RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


class Rules:
    """What may be done below which paths. Opened once, for many rulesets; paths that do not exist are left out, and so are those that another
    name was given for already.
    """

    def __init__(self, allowed: list[tuple[str, int]]):
        self._abi = version()
        self._known = _known_rights(self._abi)
        self._rules: dict[tuple[int, int], bytes] = {}
        for path, rights in allowed:
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                found = os.fstat(descriptor)
                self._rules[found.st_dev, found.st_ino] = self._rule(descriptor, rights, stat.S_ISDIR(found.st_mode))

    def ruleset(self, has_network: bool = False) -> int:
        """A new one, without the process being in it yet."""
        tcp = _TCP if self._abi >= TCP_SINCE and not has_network else 0
        made = _create(self._abi, self._known, tcp, _SCOPES if self._abi >= SCOPES_SINCE else 0)
        for rule in self._rules.values():
            syscall('landlock rule', _ADD, made, 1, rule)
        return made

    def add(self, ruleset: int, folder: str, rights: int) -> None:
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        syscall('landlock rule', _ADD, ruleset, 1, self._rule(descriptor, rights, True))
        os.close(descriptor)

    def _rule(self, descriptor: int, rights: int, is_folder: bool) -> bytes:
        return struct.pack('=Qi', rights & self._known & (ALL if is_folder else _ON_FILES), descriptor)


def scope_signals() -> bool:
    """From now on signals reach only this process and its descendants. False where the kernel cannot."""
    abi = version()
    if abi < SCOPES_SINCE:
        return False
    enter(_create(abi, 0, 0, _SCOPES))
    return True
