"""The first process of a sandbox: prepares it, forks the script, obeys the parent, and ends everything when the script has ended.

In tier 2 it is pid 1 of the namespace; in tier 1 it is the subreaper of what the script leaves behind. It keeps the right to resize the
script's folder until the run begins. The script cannot touch it: it is not dumpable, and signals do not reach it.

On the status socket, packets from the parent: G the user maps are written, T ask the script to stop, K end it. To the parent: R ready,
F failed (text), E ended (wait status, seconds of processor time, largest process in KiB, what the watch killed it for or a dash). On the begin socket the script says R when it is ready, then its limits (JSON), and waits for a packet
before the user's code runs: so no run is ever without its limits, however late the parent hears of it. With the limits may come the
descriptor of a line to the supervisor: then the process may be kept (residence).
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import traceback
from typing import NoReturn

from . import execution, landlock, script, tree
from .plan import DEFAULT_LIMITS, HOST, INSIDE_ID, NICE, PARENT_NICE, ChildPlan
from .residence import KEEP, Residence
from .system import (
    CLONE_NEWCGROUP,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    drop_bounding_capabilities,
    drop_capabilities,
    fork,
    prctl,
    unblock_signals,
    unshare,
    write_file,
)
from .watch import Watch, children_of

_STATUS = 4


def run(plan: ChildPlan, shared: script.Shared, descriptors: tuple[int, int, int, int]) -> NoReturn:
    """`descriptors`: standard output, standard error, the script's channel, the status socket."""
    try:
        shared.take(descriptors)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        unblock_signals()
        status = socket.socket(fileno=_STATUS)
        try:
            scoped = _prepare(plan, status)
            pid, begin = _fork_script(plan, shared, status)
            status.send(b'R')
            _Init(plan, status, begin, pid, scoped).serve()
        except Exception:
            status.send(b'F' + traceback.format_exc().encode(errors='replace')[-8000:])
    except OSError:
        pass  # the parent is gone
    finally:
        os._exit(1)


def _prepare(plan: ChildPlan, status: socket.socket) -> bool:
    """Returns whether signals of this process reach nobody else."""
    if plan.has_namespaces and status.recv(1) != b'G':
        os._exit(0)
    for group in plan.groups:
        write_file(f'{group}/cgroup.procs', '0')
    _become(plan)
    os.umask(0o077)
    os.nice(NICE - PARENT_NICE)
    if plan.has_namespaces:
        tree.bind()
        tree.enter(DEFAULT_LIMITS['disk_mib'], INSIDE_ID)
        socket.sethostname(HOST)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:  # the parent's end shows on the status socket: then there may be something to sweep
        os.chdir(plan.work)
    drop_bounding_capabilities()  # the script inherits that
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)
    return not plan.has_namespaces and plan.plan.landlock and landlock.scope_signals()


def _become(plan: ChildPlan) -> None:
    if plan.has_namespaces:
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWCGROUP)
        user = INSIDE_ID
    elif plan.uid is not None:
        user = plan.uid
    else:
        return
    with contextlib.suppress(PermissionError):  # an ordinary user may not: its groups stay, and own nothing in here
        os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _fork_script(plan: ChildPlan, shared: script.Shared, status: socket.socket) -> tuple[int, socket.socket]:
    begin, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = fork()
    if pid == 0:
        status.close()
        begin.close()
        try:
            script.start(plan, shared, theirs)
        finally:
            os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are the script's; a pid 1 without handlers is out of its reach
    theirs.close()
    null = os.open('/dev/null', os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (1, 2, 3, *([script.RULESET] if shared.rules else ())):
        os.dup2(null, descriptor)
    said = begin.recv(65536)
    if said != b'R':
        raise RuntimeError(said.decode(errors='replace') or 'the script process ended while it was prepared')
    return pid, begin


class _Init:
    def __init__(self, plan: ChildPlan, status: socket.socket, begin: socket.socket, script_pid: int, scoped: bool):
        self._plan = plan
        self._status = status
        self._begin_socket = begin
        self._script = script_pid
        self._may_kill_all = plan.has_namespaces or plan.uid is not None or scoped
        needs_pids = not plan.has_namespaces and plan.uid is None
        self._watch = Watch(plan.has_namespaces, not plan.has_memory_group, needs_pids)
        self._residence: Residence | None = None
        self._cause = '-'
        self._end: int | None = None

    def serve(self) -> None:
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        poll.register(_STATUS, select.POLLIN)
        poll.register(self._begin_socket, select.POLLIN)
        while self._end is None:
            for descriptor, _ in poll.poll(self._patience_ms()):
                if descriptor == woken:
                    os.read(woken, 4096)
                elif descriptor == _STATUS:
                    self._obey()
                elif self._residence:
                    self._attend(descriptor)
                else:
                    self._begin(poll)
            if self._watch.is_running and (cause := self._watch.excess()):
                self._cause = cause if self._cause == '-' else self._cause
                self._kill_all()
            if self._residence and self._residence.excess():
                self._kill_all()
            self._reap()
        self._finish()

    def _obey(self) -> None:
        packet = self._status.recv(65536)
        match packet[:1]:
            case b'T' if self._residence:
                self._residence.stop()
            case b'T':
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._script, signal.SIGTERM)
            case b'K' | b'':
                self._kill_all()

    def _begin(self, poll: select.poll) -> None:
        packet, descriptors, _, _ = socket.recv_fds(self._begin_socket, 4096, 1)
        if not packet:
            poll.unregister(self._begin_socket)
            return  # the script ended before it began
        limits = json.loads(packet)
        self._limits = limits
        if self._plan.has_namespaces:
            if limits['disk_mib'] != DEFAULT_LIMITS['disk_mib']:
                tree.resize(limits['disk_mib'])
            drop_capabilities()
        self._watch.begin(limits['memory_mib'], limits['processes'])
        for descriptor in descriptors:
            line = socket.socket(fileno=descriptor)
            with contextlib.suppress(OSError, KeyError, ValueError):
                self._residence = Residence(line, self._begin_socket, self._script, limits['begin'], self._plan.has_namespaces, limits)
                poll.register(line, select.POLLIN)
        if not self._residence:
            poll.unregister(self._begin_socket)
        with contextlib.suppress(OSError):
            self._begin_socket.send(KEEP if self._residence else b'A')

    def _patience_ms(self) -> float | None:
        if self._residence and (self._residence.is_parked or not self._watch.is_running):
            return self._residence.look_seconds * 1000
        return 100 if self._watch.is_running else None

    def _attend(self, descriptor: int) -> None:
        """To a process that is kept: between two runs there is nothing to watch."""
        if descriptor == self._residence.line.fileno():
            is_well = self._residence.obey()
            if is_well and not self._residence.is_parked:
                self._watch.begin(self._limits['memory_mib'], self._limits['processes'])
        else:
            is_well = self._residence.done()
            self._watch.rest()
        if not is_well:
            self._kill_all()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._script:
                    self._end = ended[1]

    def _kill_all(self) -> None:
        """Everything in the sandbox but this process."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._may_kill_all:
                os.kill(-1, signal.SIGKILL)
            else:  # whose parents die is handed to this process and found the next time
                for pid in children_of('self', os.getpid()):
                    os.kill(pid, signal.SIGKILL)

    def _finish(self) -> None:
        while True:
            self._kill_all()
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not self._plan.has_namespaces:
            self._clear_work()
        with contextlib.suppress(OSError):
            self._status.send(b'E%d %f %d %s' % (self._end, used.ru_utime + used.ru_stime, used.ru_maxrss, self._cause.encode()))
        os._exit(0)

    def _clear_work(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f'{self._plan.work}/{execution.NAME}')
            if not os.listdir(self._plan.work):
                return
        for command in (['chmod', '-R', 'u+rwx', self._plan.work], ['rm', '-rf', self._plan.work]):
            with contextlib.suppress(OSError):
                subprocess.run(command, env={'PATH': '/usr/bin:/bin'}, stderr=subprocess.DEVNULL, check=False)
