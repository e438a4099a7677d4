"""Keeps sandboxed children prepared, ahead of demand. It holds no secret and one thread, and runs no code of a user.

Packets on the control socket are JSON. To the supervisor: {"up": what it found} once; {"new": id} with the child's channel, standard
output and standard error; {"armed": id} its control groups have its limits; {"exit": id, ...}; {"failed": text} a child could not be
prepared. From it: {"launch": id, "limits": {...}} the child is in use, make another; it may have ended when this is read; {"terminate":
id}, {"kill": id}, {"retire": true} make no more and end with the last run.
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

from . import cgroup, ground, landlock, slots, surroundings
from .plan import DEFAULT_LIMITS, ChildPlan, Plan
from .seccomp import Filter
from .slots import Slot
from .system import PR_SET_CHILD_SUBREAPER, prctl
from .watch import children_of

_KILL_SECONDS = 2.0  # how long init may take to end its sandbox before it is ended itself
_FAILURES = 3  # in a row, before it gives up


def main(descriptor: int, plan: Plan) -> None:
    with contextlib.suppress(ConnectionError, KeyboardInterrupt):  # the supervisor is gone, or it was told to stop
        Parent(socket.socket(fileno=descriptor), plan).serve()


class Parent:
    def __init__(self, control: socket.socket, plan: Plan):
        self._control = control
        self._plan = plan
        self._filter = Filter()
        self._channel = surroundings.make(plan)
        self._groups = cgroup.Cgroups()
        self._free = list(range(plan.most))[::-1]
        self._children: dict[int, Slot] = {}  # by pid
        self._by_id: dict[int, Slot] = {}
        self._last_id = 0
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
            self._groups = cgroup.usable(cgroup.own_groups(own.read(), mounts.read()), self._plan.server, DEFAULT_LIMITS)
        if self._plan.tier >= 2:
            ground.make_tree(self._plan)
        else:
            ground.make_work(self._plan.work)
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

    # children

    def _prepare(self) -> None:
        """One: whoever asks for something meanwhile is not to wait for all of them."""
        if self._is_short:
            self._wanted -= 1
            number = self._free.pop()
            self._groups.prepare(number, DEFAULT_LIMITS)
            self._fork(number)

    @property
    def _is_short(self) -> bool:
        return bool(self._wanted and self._free)

    def _fork(self, number: int) -> None:
        uid = self._plan.uids[number] if self._plan.uids else None
        plan = ChildPlan(self._plan, number, self._groups.paths(number), 'memory' in self._groups.folders, uid, self._shared_processes)
        self._last_id += 1
        slot = slots.start(plan, self._filter, self._channel, self._last_id, self._groups.usage(number).kills)
        self._children[slot.pid] = self._by_id[slot.id] = self._by_status[slot.status.fileno()] = slot
        self._poll.register(slot.status, select.POLLIN)

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
        del self._by_status[slot.status.fileno()], self._by_id[slot.id]
        slot.close()
        self._free.append(slot.number)
        self._has_strays = self._has_strays or (self._plan.tier < 2 and slot.report is None)
        if not slot.is_announced:
            self._fail(slot.fault or 'a child ended while it was prepared')
            return
        if slot.report is None and slot.fault:
            self._tell({'failed': slot.fault})
        self._tell_exit(slot, used)

    def _tell_exit(self, slot: Slot, used: resource.struct_rusage | None) -> None:
        """Once. Nothing of the run is left when init reports; init itself and its namespaces take some milliseconds more to end."""
        if slot.is_told:
            return
        slot.is_told = True
        usage = self._groups.usage(slot.number)
        self._tell({'exit': slot.id} | slot.account(used, usage.peak_kib, usage.kills))

    def _fail(self, fault: str) -> None:
        self._failures += 1
        self._tell({'failed': fault})
        self._want_another()
        if self._wanted is not None and self._failures >= _FAILURES:
            raise ConnectionError

    def _want_another(self) -> None:
        if self._wanted is not None:
            self._wanted += 1

    # messages

    def _wait(self) -> None:
        is_urgent = self._has_strays or any(slot.kill_time is not None for slot in self._children.values())
        for descriptor, _ in self._poll.poll(0 if self._is_short else 50 if is_urgent else None):
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
        slot = self._by_id.get(order[verb])
        if verb == 'launch':
            self._want_another()
        if slot is None:
            return
        if verb == 'launch':
            slot.is_launched = True
            with contextlib.suppress(OSError):  # a limit below what it uses already: the kernel's word stands
                self._groups.limit(slot.number, order['limits'])
            self._tell({'armed': slot.id})
        elif verb == 'terminate':
            slot.send(b'T')
        else:
            slot.kill()

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
                socket.send_fds(self._control, [json.dumps({'new': slot.id}).encode()], slot.descriptors)
                slot.close_descriptors()
            case b'E':
                slot.report = packet[1:].decode().split()
                self._tell_exit(slot, None)
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
