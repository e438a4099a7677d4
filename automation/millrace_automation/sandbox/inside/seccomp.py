"""The filter over system calls: an allow list. What is known and dangerous answers EPERM, what is unknown ENOSYS, as an older kernel would,
so that libraries fall back. A call by another architecture's convention ends the process.
"""

import ctypes
import errno
import struct

from .calls import ALLOWED, BY_ARGUMENT, REFUSED
from .system import IS_ARM, PR_SET_SECCOMP, prctl

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _AND, _RETURN = (
    0x20,
    0x15,
    0x25,
    0x45,
    0x54,
    0x06,
)  # BPF_LD|W|ABS, BPF_JMP|JEQ, JGT, JSET, BPF_ALU|AND, BPF_RET
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_AUDIT_ARCH = 0xC00000B7 if IS_ARM else 0xC000003E
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag but the time namespace, whose bit clone does not take
_SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 5, 0xF
_AF_UNIX, _TIOCSTI, _TIOCLINUX = 1, 0x5412, 0x541C
_MODE_FILTER = 2
_OF_A_PROCESS = ('prlimit64', 'sched_setaffinity', 'sched_setscheduler', 'sched_setparam', 'sched_setattr')  # by their first argument

Instruction = tuple[int, int, int, int]


def _return(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _argument(index: int) -> Instruction:
    """Loads the lower half of an argument (both architectures are little-endian)."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _choose(answers: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """A search tree over the calls' numbers: each answer holds from its number to the next one's. The kernel runs the program for every number
    there is when a process enters the filter, so a list that is walked from its beginning costs more there than later.
    """
    if len(answers) == 1:
        return answers[0][1]
    middle = len(answers) // 2
    below, above = _choose(answers[:middle]), _choose(answers[middle:])
    return [(_GREATER, len(below), 0, answers[middle][0] - 1), *below, *above]


def _answers() -> list[tuple[int, list[Instruction]]]:
    refuse, unknown = _return(_ERRNO | errno.EPERM), [_return(_ERRNO | errno.ENOSYS)]
    by = BY_ARGUMENT
    found = {
        **{number: [_return(_ALLOW)] for number in ALLOWED.values()},
        **{number: [refuse] for number in REFUSED.values()},
        by['clone']: [_argument(0), (_ANY_BIT, 0, 1, _NAMESPACES), refuse, _return(_ALLOW)],
        # asyncio needs it. Sockets of datagrams send to any path, which nothing else would hold back where the mounts are the machine's.
        by['socketpair']: [
            *(_argument(0), (_EQUAL, 1, 0, _AF_UNIX), refuse),
            *(_argument(1), (_AND, 0, 0, _SOCK_TYPE), (_EQUAL, 2, 0, _SOCK_STREAM), (_EQUAL, 1, 0, _SOCK_SEQPACKET), refuse),
            _return(_ALLOW),
        ],
        by['ioctl']: [_argument(1), (_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX), refuse, _return(_ALLOW)],
        # Only about itself: where the server has the same user, it is in reach.
        **{by[name]: [_argument(0), (_EQUAL, 1, 0, 0), refuse, _return(_ALLOW)] for name in _OF_A_PROCESS},
        by['setpriority']: [_argument(0), (_EQUAL, 0, 2, 0), _argument(1), (_EQUAL, 1, 0, 0), refuse, _return(_ALLOW)],
        by['clone3']: unknown,  # its flags are out of the filter's sight, and libraries use clone instead
    }
    answers: list[tuple[int, list[Instruction]]] = []
    for number in range(max(found) + 2):
        answer = found.get(number, unknown)
        if not answers or answers[-1][1] != answer:
            answers.append((number, answer))
    return answers


def program() -> list[Instruction]:
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT_ARCH), _return(_KILL), (_LOAD, 0, 0, _NUMBER)]
    if not IS_ARM:
        lines += [(_GREATER, 0, 1, _X32 - 1), _return(_KILL)]
    return lines + _choose(_answers())


class Filter:
    """The program in memory, made once and inherited."""

    def __init__(self) -> None:
        lines = program()
        self._code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in lines))
        self._program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(lines), ctypes.addressof(self._code)))

    def enforce(self) -> None:
        """Needs no_new_privs. Holds for this process and all it makes, for ever."""
        prctl(PR_SET_SECCOMP, _MODE_FILTER, self._program)
