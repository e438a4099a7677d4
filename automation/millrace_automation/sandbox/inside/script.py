"""The process of the user's code: locks itself in, waits for one request, runs it."""

import _signal
import json
import os
import random
import signal
import socket
from dataclasses import dataclass
from typing import NoReturn

from . import execution, landlock, reuse, rlimits, tree
from .channel import Channel
from .plan import ChildPlan, Plan
from .residence import KEEP
from .seccomp import Filter
from .surroundings import libraries_inside
from .system import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, drop_capabilities, keep_low, prctl, take_descriptors

RULESET = 5

_SYSTEM_FILES = (
    *('/dev/urandom', '/dev/random', '/etc/localtime', '/etc/passwd', '/etc/group', '/etc/nsswitch.conf'),
    *('/etc/hosts', '/etc/services', '/etc/protocols'),
    *tree.DATA,
)


@dataclass(frozen=True)
class Shared:
    """What the parent makes once, for all scripts."""

    filter: Filter
    rules: landlock.Rules | None
    channel: Channel
    null: int

    @classmethod
    def make(cls, plan: Plan, channel: Channel) -> 'Shared':
        return cls(Filter(), _rules(plan) if plan.landlock else None, channel, keep_low(RULESET + 1))

    def take(self, descriptors: tuple[int, int, int, int]) -> None:
        """Makes this process forget the parent's descriptors. It has its own at 1 to 4 then, and a ruleset at RULESET that is not finished."""
        take_descriptors(self.null, (*descriptors, self.rules.ruleset()) if self.rules else descriptors)


def start(plan: ChildPlan, shared: Shared, begin: socket.socket) -> NoReturn:
    """Descriptors: 1 and 2 are pipes, 3 the channel; `begin` leads to init."""
    try:
        shared.channel.own()
        lock_in(plan, shared)
        begin.send(b'R')
    except BaseException as fault:
        begin.send(f'{type(fault).__name__}: {fault}'.encode(errors='replace'))
        os._exit(1)
    code = 1
    try:
        code = _serve(plan, shared.channel, begin)
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


def lock_in(plan: ChildPlan, shared: Shared) -> None:
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
    if shared.rules:
        if plan.has_namespaces:
            shared.rules.add(RULESET, '/proc', landlock.READ)
        shared.rules.add(RULESET, '.', landlock.ALL)
        landlock.enter(RULESET)
    shared.filter.enforce()
    execution.rehearse()


def _rules(plan: Plan) -> landlock.Rules:
    """What all scripts of a parent may read. Its own folder, and its own /proc, each adds itself."""
    top = tree.ROOT if plan.tier >= 2 else ''
    libraries = libraries_inside(plan)
    readable = [*tree.SYSTEM, *plan.python, *([libraries] if libraries else [])]
    rules = [(top + path, landlock.RUN) for path in readable if not (top and os.path.islink(top + path))]
    if top:  # the tree is its own
        rules += [(f'{top}/etc', landlock.READ), (f'{top}/dev', landlock.DEVICE)]
    else:
        rules += [(path, landlock.READ) for path in _SYSTEM_FILES]
        rules += [('/dev/null', landlock.DEVICE), ('/dev/zero', landlock.DEVICE), ('/dev/full', landlock.DEVICE)]
    return landlock.Rules(rules)
