"""Keeps sandboxed children prepared, ahead of demand. It holds no secret and one thread, and runs no code of a user.

Packets on the control socket are JSON. To the supervisor: {"up": what it found} once; {"new": slot} with the child's channel, standard
output and standard error; {"armed": slot} its limits are set; {"exit": slot, ...}; {"failed": text} a child could not be prepared.
From it: {"launch": slot, "limits": {...}}, {"terminate": slot}, {"kill": slot}, {"retire": true} make no more and end with the last run.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import time

from . import cgroup, ground, init, landlock
from .plan import DEFAULT_LIMITS, ChildPlan, Plan
from .seccomp import Filter
from .slots import Slot
from .system import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_SET_CHILD_SUBREAPER,
    clone,
    prctl,
)
from .watch import children_of

_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
_KILL_SECONDS = 2.0  # how long init may take to end its sandbox before it is ended itself
_FAILURES = 3  # in a row, before it gives up


def main(descriptor: int, plan: Plan) -> None:
    with contextlib.suppress(ConnectionError):  # the supervisor is gone
        Parent(socket.socket(fileno=descriptor), plan).serve()


class Parent:
    def __init__(self, control: socket.socket, plan: Plan):
        self._control = control
        self._plan = plan
        self._filter = Filter()
        self._groups = cgroup.Cgroups()
        self._free = list(range(plan.most))[::-1]
        self._children: dict[int, Slot] = {}  # by pid
        self._by_slot: dict[int, Slot] = {}
        self._by_status: dict[int, Slot] = {}
        self._poll = select.poll()
        self._wanted = plan.prepared
        self._failures = 0
        self._has_strays = False
        self._shared_processes = 0

    def serve(self) -> None:
        try:
            self._set_up()
        except OSError as fault:
            self._tell({'failed': f'{fault.filename}: {fault.strerror}'})
            return
        try:
            while self._wanted is not None or self._children:
                self._prepare()
                self._wait()
                self._reap()
                self._kill_overdue()
        finally:
            self._tear_down()

    # setting up

    def _set_up(self) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with open('/proc/self/cgroup') as own, open('/proc/self/mountinfo') as mounts:
            self._groups = cgroup.find(cgroup.own_groups(own.read(), mounts.read()), self._plan.server)
        self._try_groups()
        if self._plan.tier >= 2:
            ground.make_tree(self._plan)
        else:
            os.makedirs(self._plan.work, mode=0o711, exist_ok=True)
            self._shared_processes = 0 if self._plan.uids else ground.processes_of(os.getuid())
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = woken
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(woken, select.POLLIN)
        self._tell({'up': {'groups': sorted(self._groups.folders), 'version': self._groups.version, 'landlock': landlock.version()}})
        gc.collect()
        gc.freeze()

    def _try_groups(self) -> None:
        """A controller that turns out not to be ours to set is left to the watch."""
        if self._groups.folders:
            try:
                self._make_groups(0)
            except OSError:
                self._groups.remove()
                self._groups = cgroup.Cgroups()

    def _make_groups(self, number: int) -> None:
        self._groups.make(number)
        self._groups.set_limits(number, DEFAULT_LIMITS['memory_mib'], DEFAULT_LIMITS['processes'] + 1)
        self._groups.restart(number)

    # children

    def _prepare(self) -> None:
        while self._wanted and self._free:
            self._wanted -= 1
            number = self._free.pop()
            self._make_groups(number)
            self._fork(number)

    def _fork(self, number: int) -> None:
        uid = self._plan.uids[number] if self._plan.uids else None
        plan = ChildPlan(self._plan, number, self._groups.paths(number), 'memory' in self._groups.folders, uid, self._shared_processes)
        if not plan.has_namespaces:
            with contextlib.suppress(FileExistsError):
                os.mkdir(plan.work, 0o700)
            if uid is not None:
                os.chown(plan.work, uid, uid)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel, script_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, output_end = os.pipe()
        error, error_end = os.pipe()
        if uid is not None:  # it opens them by name too, as /dev/stderr
            os.fchown(output_end, uid, uid)
            os.fchown(error_end, uid, uid)
        pid = clone(_NAMESPACES) if plan.has_namespaces else os.fork()
        if pid == 0:
            init.run(plan, self._filter, (output_end, error_end, script_channel.fileno(), theirs.fileno()))
        theirs.close()
        script_channel.close()
        os.close(output_end)
        os.close(error_end)
        slot = Slot(number, pid, ours, (channel.detach(), output, error), self._groups.usage(number).kills)
        self._children[pid] = self._by_slot[number] = self._by_status[ours.fileno()] = slot
        self._poll.register(ours, select.POLLIN)
        if plan.has_namespaces:
            try:
                ground.map_user(pid, uid)
                slot.send(b'G')
            except OSError as fault:
                slot.fault = f'{fault.filename or "user map"}: {fault.strerror}'
                os.kill(pid, signal.SIGKILL)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for slot in self._children.values():
            if slot.kill_time is not None and now > slot.kill_time + _KILL_SECONDS:
                os.kill(slot.pid, signal.SIGKILL)
        if self._has_strays:  # whose init is dead: nobody else would end them
            strays = [pid for pid in children_of('self', os.getpid()) if pid not in self._children]
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._has_strays = bool(strays)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if slot := self._children.pop(pid, None):
                    self._end(slot, used)

    def _end(self, slot: Slot, used: resource.struct_rusage) -> None:
        while self._hear(slot):
            pass  # what it said before it ended
        self._poll.unregister(slot.status)
        del self._by_status[slot.status.fileno()], self._by_slot[slot.number]
        slot.close()
        self._free.append(slot.number)
        self._has_strays = self._has_strays or (self._plan.tier < 2 and slot.report is None)
        if not slot.is_announced:
            self._fail(slot.fault or 'a child ended while it was prepared')
            return
        if slot.report is None and slot.fault:
            self._tell({'failed': slot.fault})
        usage = self._groups.usage(slot.number)
        self._tell({'exit': slot.number} | slot.account(used, usage.peak_kib, usage.kills))

    def _fail(self, fault: str) -> None:
        self._failures += 1
        self._tell({'failed': fault})
        if self._wanted is not None:
            self._wanted += 1
            if self._failures >= _FAILURES:
                raise ConnectionError

    # messages

    def _wait(self) -> None:
        is_urgent = self._has_strays or any(slot.kill_time is not None for slot in self._children.values())
        for descriptor, _ in self._poll.poll(50 if is_urgent else None):
            if descriptor == self._woken:
                os.read(descriptor, 4096)
            elif descriptor == self._control.fileno():
                self._obey()
            elif slot := self._by_status.get(descriptor):
                self._hear(slot)

    def _obey(self) -> None:
        data = self._control.recv(4096)
        if not data:
            raise ConnectionError
        order = json.loads(data)
        if 'retire' in order:
            self._wanted = None
            for slot in [slot for slot in self._children.values() if not slot.is_launched]:
                slot.kill()
            return
        (verb,) = order.keys() & {'launch', 'terminate', 'kill'}
        if slot := self._by_slot.get(order[verb]):
            if verb == 'launch':
                self._launch(slot, order['limits'])
            elif verb == 'terminate':
                slot.send(b'T')
            else:
                slot.kill()

    def _launch(self, slot: Slot, limits: dict[str, int]) -> None:
        slot.is_launched = True
        if limits != DEFAULT_LIMITS:
            with contextlib.suppress(OSError):
                self._groups.set_limits(slot.number, limits['memory_mib'], limits['processes'] + 1)
        slot.send(b'L' + json.dumps(limits).encode())
        if self._wanted is not None:
            self._wanted += 1

    def _hear(self, slot: Slot) -> bool:
        """Takes one packet of an init; False when there is none."""
        try:
            packet = slot.status.recv(65536, socket.MSG_DONTWAIT)
        except OSError:
            return False
        match packet[:1]:
            case b'R':
                self._failures = 0
                slot.is_announced = True
                socket.send_fds(self._control, [json.dumps({'new': slot.number}).encode()], slot.descriptors)
                slot.close_descriptors()
            case b'A':
                self._tell({'armed': slot.number})
            case b'E':
                slot.report = json.loads(packet[1:])
            case b'F':
                slot.fault = packet[1:].decode(errors='replace')
        return bool(packet)

    def _tell(self, message: dict) -> None:
        self._control.send(json.dumps(message).encode())

    def _tear_down(self) -> None:
        """Ends what still runs. When this process is killed instead, the kernel and each init do that."""
        self._wanted = None
        for slot in self._children.values():
            slot.kill()
        end = time.monotonic() + _KILL_SECONDS
        while self._children and time.monotonic() < end + 1:
            for pid in list(self._children):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self._children[pid]
                elif time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        self._groups.remove()
        if self._plan.tier < 2:
            with contextlib.suppress(OSError):
                for name in os.listdir(self._plan.work):
                    os.rmdir(f'{self._plan.work}/{name}')
                os.rmdir(self._plan.work)
