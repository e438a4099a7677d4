"""The filter's program, run by a small interpreter of its own, on both architectures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050000 | 38
ARCHITECTURES = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}
HEADERS = {'x86_64': 'x86_64-linux-gnu/asm/unistd_64.h', 'aarch64': 'asm-generic/unistd.h'}
PRINT = """
import json, platform, sys
platform.machine = lambda: sys.argv[1]
from millrace_automation.sandbox.inside import calls, seccomp
print(json.dumps([seccomp.program(), calls.ALLOWED, calls.REFUSED, calls.BY_ARGUMENT]))
"""


class Filter:
    def __init__(self, machine: str):
        self.architecture = ARCHITECTURES[machine]
        printed = subprocess.run(
            [sys.executable, '-c', PRINT, machine], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
        )
        self.program, self.allowed, self.refused, self.by_argument = json.loads(printed.stdout)

    def decide(self, number: int, *arguments: int, architecture: int | None = None) -> int:
        data = {0: number, 4: architecture or self.architecture} | {16 + 8 * i: value for i, value in enumerate((*arguments, *[0] * 6))}
        at = value = 0
        while True:
            code, if_true, if_false, constant = self.program[at]
            at += 1
            if code == 0x06:
                return constant
            if code == 0x20:
                value = data[constant]
            elif code == 0x54:
                value &= constant
            else:
                is_true = {0x15: value == constant, 0x25: value > constant, 0x45: bool(value & constant)}[code]
                at += if_true if is_true else if_false


@pytest.fixture(scope='module', params=ARCHITECTURES)
def filter(request) -> Filter:
    return Filter(request.param)


def test_every_number(filter):
    special = set(filter.by_argument.values())
    for number in range(600):
        expected = ALLOW if number in filter.allowed.values() else EPERM if number in filter.refused.values() else ENOSYS
        if number not in special:
            assert filter.decide(number) == expected, number


def test_no_call_is_in_two_lists(filter):
    names = [*filter.allowed, *filter.refused, *filter.by_argument]
    numbers = [*filter.allowed.values(), *filter.refused.values(), *filter.by_argument.values()]
    assert len(set(names)) == len(names)
    assert len(set(numbers)) == len(numbers)


def test_what_must_never_be_allowed(filter):
    for name in ('socket', 'connect', 'ptrace', 'mount', 'unshare', 'setns', 'bpf', 'io_uring_setup', 'memfd_create', 'process_vm_readv'):
        assert filter.decide(filter.refused[name]) == EPERM


def test_arguments(filter):
    clone, socketpair, ioctl = (filter.by_argument[name] for name in ('clone', 'socketpair', 'ioctl'))
    assert filter.decide(clone, 17) == ALLOW
    assert filter.decide(clone, 0x3D0F00) == ALLOW  # a thread
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert filter.decide(clone, namespace | 17) == EPERM
    assert filter.decide(filter.by_argument['clone3']) == ENOSYS
    assert [filter.decide(socketpair, family, 1) for family in (1, 2, 10, 16)] == [ALLOW, EPERM, EPERM, EPERM]
    kinds = (1, 5, 1 | 0x80800, 2, 3, 2 | 0x80000)  # stream, packets, with flags, datagrams, raw
    assert [filter.decide(socketpair, 1, kind) for kind in kinds] == [ALLOW, ALLOW, ALLOW, EPERM, EPERM, EPERM]
    assert [filter.decide(ioctl, 0, request) for request in (0x5401, 0x5412, 0x541C)] == [ALLOW, EPERM, EPERM]
    for name in ('prlimit64', 'sched_setaffinity', 'sched_setscheduler', 'sched_setparam', 'sched_setattr'):
        assert [filter.decide(filter.by_argument[name], pid) for pid in (0, 1, 4711)] == [ALLOW, EPERM, EPERM]
    # process, group or user; number
    asked = [(0, 0), (0, 4711), (1, 0), (2, 0), (2, 4711)]
    assert [filter.decide(filter.by_argument['setpriority'], *one) for one in asked] == [ALLOW, EPERM, EPERM, EPERM, EPERM]


def test_another_architecture_ends_the_process(filter):
    for other in (0x40000003, 0xC00000B7 if filter.architecture == 0xC000003E else 0xC000003E):
        assert filter.decide(0, architecture=other) == KILL
    if filter.architecture == 0xC000003E:
        assert filter.decide(0x40000000 | 1) == KILL  # x32


@pytest.mark.parametrize('machine', ARCHITECTURES)
def test_numbers_are_the_kernels(machine):
    header = Path('/usr/include', HEADERS[machine])
    if not header.exists():
        pytest.skip('the kernel headers are not installed')
    known = {name: int(number) for name, number in re.findall(r'#define __NR(?:3264)?_(\w+)\s+(\d+)\n', header.read_text())}
    filter = Filter(machine)
    ours = filter.allowed | filter.refused | filter.by_argument
    if machine == 'aarch64':
        ours['fstatat'] = ours.pop('newfstatat')
        ours['sync_file_range2'] = ours.pop('sync_file_range')
        known.setdefault('sync_file_range2', known.get('sync_file_range', 84))
    assert {name: number for name, number in ours.items() if known.get(name, number) != number} == {}
    assert len(set(ours) & set(known)) > 250
