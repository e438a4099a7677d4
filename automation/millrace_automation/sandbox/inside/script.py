"""The process of the user's code: locks itself in, waits for one request, runs it."""

import _signal
import json
import os
import random
import signal
import socket
from typing import NoReturn

from . import execution, landlock, reuse, rlimits, tree
from .channel import Channel
from .plan import ChildPlan
from .residence import KEEP
from .seccomp import Filter
from .surroundings import libraries_inside
from .system import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, drop_capabilities, prctl

_SYSTEM_FILES = (
    *('/dev/urandom', '/dev/random', '/etc/localtime', '/etc/passwd', '/etc/group', '/etc/nsswitch.conf'),
    *('/etc/hosts', '/etc/services', '/etc/protocols'),
    *tree.DATA,
)


def start(plan: ChildPlan, filter: Filter, channel: Channel, begin: socket.socket) -> NoReturn:
    """Descriptors: 1 and 2 are pipes, 3 the channel; `begin` leads to init."""
    try:
        channel.own()
        lock_in(plan, filter)
        begin.send(b'R')
    except BaseException as fault:
        begin.send(f'{type(fault).__name__}: {fault}'.encode(errors='replace'))
        os._exit(1)
    code = 1
    try:
        code = _serve(plan, channel, begin)
    finally:
        os._exit(code & 255)


def _serve(plan: ChildPlan, channel: Channel, begin: socket.socket) -> int:
    try:
        request, line = channel.receive()
        limits = request['limits']
        rlimits.set_for_run(limits, plan.process_slots(limits['processes']), bool(line))
        socket.send_fds(begin, [json.dumps(limits | {'begin': begin.fileno()}).encode()], line)
        for descriptor in line:
            os.close(descriptor)
        if begin.recv(1) == KEEP:
            return reuse.serve(request, channel, begin)
        if line:
            rlimits.set_for_run(limits, plan.process_slots(limits['processes']), False)
        begin.close()
        return execution.run(request, channel)
    except KeyboardInterrupt as fault:  # asked to stop while it had not begun, or had ended
        return execution.report_raised(channel, fault)


def lock_in(plan: ChildPlan, filter: Filter) -> None:
    """Everything that can be done before the request is known. Nothing of it can be undone."""
    os.setsid()
    prctl(PR_SET_DUMPABLE, 1)  # its own /proc/self
    if not plan.has_namespaces:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ['HOME'] = os.environ['TMPDIR'] = os.getcwd()
    _signal.signal(signal.SIGCHLD, _signal.SIG_DFL)
    random.seed()
    drop_capabilities()
    rlimits.set_fixed()
    if plan.plan.landlock:
        landlock.restrict_files(_allowed(plan))
    filter.enforce()


def _allowed(plan: ChildPlan) -> list[tuple[str, int]]:
    libraries = libraries_inside(plan.plan)
    readable = [*tree.SYSTEM, *plan.plan.python, *([libraries] if libraries else [])]
    rules = [(path, landlock.RUN) for path in readable]
    if plan.has_namespaces:  # the tree is its own
        rules += [('/etc', landlock.READ), ('/proc', landlock.READ), ('/dev', landlock.DEVICE), (tree.WORK, landlock.ALL)]
    else:
        rules += [(path, landlock.READ) for path in _SYSTEM_FILES]
        rules += [('/dev/null', landlock.DEVICE), ('/dev/zero', landlock.DEVICE), ('/dev/full', landlock.DEVICE)]
        rules += [(os.getcwd(), landlock.ALL)]
    return rules
