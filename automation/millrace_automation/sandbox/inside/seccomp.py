"""The filter over system calls: an allow list. What is known and dangerous answers EPERM, what is unknown ENOSYS, as an older kernel would,
so that libraries fall back. A call by another architecture's convention ends the process.
"""

import ctypes
import errno
import struct

from .calls import ALLOWED, BY_ARGUMENT, REFUSED
from .system import IS_ARM, PR_SET_SECCOMP, prctl

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ, JGT, JSET, BPF_RET
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_AUDIT_ARCH = 0xC00000B7 if IS_ARM else 0xC000003E
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag but the time namespace, whose bit clone does not take
_AF_UNIX, _TIOCSTI, _TIOCLINUX = 1, 0x5412, 0x541C
_MODE_FILTER = 2

Instruction = tuple[int, int, int, int]


def _return(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _on(number: int, *then: Instruction) -> list[Instruction]:
    """Runs `then`, which must return, when the call is that one."""
    return [(_EQUAL, 0, len(then), number), *then]


def _argument(index: int) -> Instruction:
    """Loads the lower half of an argument (both architectures are little-endian)."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """The numbers as inclusive ranges, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _select(numbers: set[int], answer: int) -> list[Instruction]:
    program: list[Instruction] = []
    for first, last in _ranges(numbers):
        if first == last:
            program += _on(first, _return(answer))
        else:  # not above `last`, and not below `first`
            program += [(_GREATER, 2, 0, last), (_GREATER, 0, 1, first - 1) if first else (_GREATER, 0, 0, 0), _return(answer)]
    return program


def program() -> list[Instruction]:
    refuse = _return(_ERRNO | errno.EPERM)
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT_ARCH), _return(_KILL), (_LOAD, 0, 0, _NUMBER)]
    if not IS_ARM:
        lines += [(_GREATER, 0, 1, _X32 - 1), _return(_KILL)]
    lines += _select(set(ALLOWED.values()), _ALLOW)
    by = BY_ARGUMENT
    lines += _on(by['clone'], _argument(0), (_ANY_BIT, 0, 1, _NAMESPACES), refuse, _return(_ALLOW))
    lines += _on(by['socketpair'], _argument(0), (_EQUAL, 1, 0, _AF_UNIX), refuse, _return(_ALLOW))  # asyncio needs it
    lines += _on(by['ioctl'], _argument(1), (_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX), refuse, _return(_ALLOW))
    lines += _select(set(REFUSED.values()), _ERRNO | errno.EPERM)
    return [*lines, _return(_ERRNO | errno.ENOSYS)]  # clone3 too: its flags are out of the filter's sight, libraries use clone instead


class Filter:
    """The program in memory, made once and inherited."""

    def __init__(self) -> None:
        lines = program()
        self._code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in lines))
        self._program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(lines), ctypes.addressof(self._code)))

    def enforce(self) -> None:
        """Needs no_new_privs. Holds for this process and all it makes, for ever."""
        prctl(PR_SET_SECCOMP, _MODE_FILTER, self._program)
