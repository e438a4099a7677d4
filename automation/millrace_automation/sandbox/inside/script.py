"""The process of the user's code: locks itself in, waits for one request, runs it."""

import _sitebuiltins
import builtins
import json
import os
import signal
import socket
import sys
import time
from typing import NoReturn

from . import execution, landlock, rlimits, streams, tree
from .channel import Channel
from .plan import ChildPlan
from .seccomp import Filter
from .system import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, drop_capabilities, prctl

_SYSTEM_FILES = (
    *('/dev/urandom', '/dev/random', '/etc/localtime', '/etc/passwd', '/etc/group', '/etc/nsswitch.conf'),
    *('/etc/hosts', '/etc/services', '/etc/protocols'),
    *tree.DATA,
)


def start(plan: ChildPlan, filter: Filter, begin: socket.socket) -> NoReturn:
    """Descriptors: 1 and 2 are pipes, 3 the channel; `begin` leads to init."""
    try:
        channel = _lock_in(plan, filter)
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
        request = channel.receive()
        limits = request['limits']
        begin.send(json.dumps(limits).encode())
        begin.recv(1)
        begin.close()
        rlimits.set_for_run(limits, plan.process_slots(limits['processes']))
        return execution.run(request, channel)
    except KeyboardInterrupt as fault:  # asked to stop while it had not begun, or had ended
        return execution.report_raised(channel, fault)


def _lock_in(plan: ChildPlan, filter: Filter) -> Channel:
    """Everything that can be done before the request is known. Nothing of it can be undone."""
    os.setsid()
    prctl(PR_SET_DUMPABLE, 1)  # its own /proc/self
    if not plan.has_namespaces:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    libraries = plan.plan.libraries and (tree.LIBRARIES if plan.has_namespaces else plan.plan.libraries)
    _set_surroundings(libraries)
    channel = Channel(*streams.install())
    drop_capabilities()
    rlimits.set_fixed()
    if plan.plan.landlock:
        landlock.restrict_files(_allowed(plan, libraries))
    filter.enforce()
    return channel


def _allowed(plan: ChildPlan, libraries: str | None) -> list[tuple[str, int]]:
    readable = [*tree.SYSTEM, *plan.plan.python, *([libraries] if libraries else [])]
    rules = [(path, landlock.RUN) for path in readable]
    if plan.has_namespaces:  # the tree is its own
        rules += [('/etc', landlock.READ), ('/proc', landlock.READ), ('/dev', landlock.DEVICE), (tree.WORK, landlock.ALL)]
    else:
        rules += [(path, landlock.READ) for path in _SYSTEM_FILES]
        rules += [('/dev/null', landlock.DEVICE), ('/dev/zero', landlock.DEVICE), ('/dev/full', landlock.DEVICE)]
        rules += [(os.getcwd(), landlock.ALL)]
    return rules


def _set_surroundings(libraries: str | None) -> None:
    """The same for every run, whatever the server was started with."""
    work = os.getcwd()
    os.environ.clear()
    os.environ.update(PATH='/usr/bin:/bin', HOME=work, TMPDIR=work, LANG='C.UTF-8', TZ='UTC')
    time.tzset()
    if libraries:
        sys.path.append(libraries)  # behind the standard library, which nothing may replace
    sys.argv[:] = [execution.NAME]
    builtins.exit = _sitebuiltins.Quitter('exit', 'Ctrl-D')
    builtins.quit = _sitebuiltins.Quitter('quit', 'Ctrl-D')
    builtins.help = _sitebuiltins._Helper()
