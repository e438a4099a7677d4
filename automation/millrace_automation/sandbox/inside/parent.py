"""Keeps sandboxed children prepared, ahead of demand. It holds no secret and one thread, and runs no code of a user.

Packets on the control socket are JSON. To the supervisor: {"up": what it found} once; {"new": id} with the child's channel, standard
output and standard error; {"armed": id} its limits hold, where they are not those it was prepared with; {"exit": id, ...}; {"failed": text}
a child could not be prepared. From it: {"launch": id, "pool": number, "limits": {...}} the child is in use, make another; it may have ended
when this is read; {"terminate": id}, {"kill": id}, {"retire": true} make no more and end with the last run.

Children with a keeper (init) and without are kept in pools of their own where both can be made, since only the first may be kept for
another run; else all of them have one, and there is one pool.
"""

import contextlib
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import time

from . import cgroup, ground, landlock, surroundings
from .plan import DEFAULT_LIMITS, PARENT_NICE, Plan
from .script import Shared
from .slots import Maker, Slot
from .system import PR_SET_CHILD_SUBREAPER, prctl
from .watch import children_of

_KILL_SECONDS = 2.0  # how long init may take to end its sandbox before it is ended itself
_FAILURES = 3  # in a row, before it gives up
_REST_SECONDS = 0.01  # a fork would take the processor from what was launched just now


def main(descriptor: int, plan: Plan) -> None:
    with contextlib.suppress(ConnectionError, KeyboardInterrupt):  # the supervisor is gone, or it was told to stop
        Parent(socket.socket(fileno=descriptor), plan).serve()


class Parent:
    def __init__(self, control: socket.socket, plan: Plan):
        self._control = control
        self._plan = plan
        self._groups = cgroup.Cgroups()
        self._free = list(range(plan.most))[::-1]
        self._children: dict[int, Slot] = {}  # by id
        self._last_id = 0
        self._launch_time = 0.0
        self._by_descriptor: dict[int, Slot] = {}
        self._killed: set[Slot] = set()  # whose keepers were asked to end them
        self._poll = select.poll()
        self._wanted: list[int] | None = None
        self._failures = 0
        self._has_strays = False

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
                self._kill_overdue()
        finally:
            self._tear_down()

    # setting up

    def _set_up(self) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        if self._plan.tier < 2:
            ground.make_work(self._plan.work)
            self._plan = ground.within_reach(self._plan)
        channel = surroundings.make(self._plan)
        os.nice(PARENT_NICE)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with open('/proc/self/cgroup') as own, open('/proc/self/mountinfo') as mounts:
            self._groups = cgroup.usable(cgroup.own_groups(own.read(), mounts.read()), self._plan.server, DEFAULT_LIMITS)
        shared_processes = 0
        if self._plan.tier >= 2:
            ground.make_tree(self._plan)
        else:
            shared_processes = 0 if self._plan.uids else ground.processes_of(os.getuid())
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # pidfds tell of children; adopted orphans vanish
        is_apart = self._plan.tier >= 2 and bool(self._plan.uids) and 'memory' in self._groups.folders
        if is_apart:
            ground.stand_apart()
        self._needs_keepers = not is_apart
        self._wanted = [max(self._plan.prepared, 1), self._plan.kept if is_apart else 0]
        self._maker = Maker(self._plan, Shared.make(self._plan, channel), self._groups, shared_processes, is_apart)
        self._poll.register(self._control, select.POLLIN)
        facts = {'groups': sorted(self._groups.folders), 'version': self._groups.version, 'landlock': landlock.version()}
        self._tell({'up': facts | {'pid': int(os.readlink('/proc/self')), 'has_keepers': self._needs_keepers}})
        gc.collect()
        gc.freeze()

    # children

    def _prepare(self) -> None:
        """One: whoever asks for something meanwhile is not to wait for all of them."""
        if self._is_short and self._rest() <= 0:
            pool = 1 if self._wanted[1] else 0
            self._wanted[pool] -= 1
            self._fork(self._free.pop(), pool)

    @property
    def _is_short(self) -> bool:
        return self._wanted is not None and bool(self._free) and any(self._wanted)

    def _rest(self) -> float:
        """Seconds until the next child is made: as long as enough of them wait, what was launched goes first."""
        if self._wanted[1] or self._wanted[0] * 2 > self._plan.prepared:
            return 0
        return self._launch_time + _REST_SECONDS - time.monotonic()

    def _fork(self, number: int, pool: int) -> None:
        has_keeper = pool == 1 or self._needs_keepers
        self._groups.prepare(number, DEFAULT_LIMITS, has_keeper)
        self._last_id += 1
        slot = self._maker.start(number, has_keeper, self._last_id)
        slot.pool = pool
        self._children[slot.id] = slot
        self._listen(slot.status.fileno(), slot)
        self._listen(slot.pidfd, slot)

    def _listen(self, descriptor: int, slot: Slot) -> None:
        self._by_descriptor[descriptor] = slot
        self._poll.register(descriptor, select.POLLIN)

    def _ignore(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def _kill_overdue(self) -> None:
        for slot in self._killed:
            if time.monotonic() > slot.kill_time + _KILL_SECONDS:
                slot.kill_last()
        if self._has_strays:  # whose init is dead: nobody else would end them
            ours = {pid for slot in self._children.values() for pid, _ in slot.processes}
            strays = [pid for pid in children_of('self', os.getpid()) if pid not in ours]
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._has_strays = bool(strays)

    def _reap(self, slot: Slot) -> None:
        pidfd = slot.pidfd
        if not (used := slot.reap()):
            return
        self._ignore(pidfd)
        while self._hear(slot):
            pass  # what it said before it ended
        if not slot.processes:
            self._end(slot, used)
            return
        slot.kill_last()
        self._listen(slot.pidfd, slot)
        if slot.is_announced and self._groups.is_empty(slot.number):  # the first process is all that is left
            self._tell_exit(slot, None)

    def _end(self, slot: Slot, used: resource.struct_rusage) -> None:
        self._ignore(slot.status.fileno())
        del self._children[slot.id]
        self._killed.discard(slot)
        slot.close()
        self._free.append(slot.number)
        self._has_strays = self._has_strays or (self._plan.tier < 2 and slot.report is None)
        if not slot.is_announced:
            self._fail(slot.fault or 'a child ended while it was prepared', slot.pool)
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

    def _fail(self, fault: str, pool: int) -> None:
        self._failures += 1
        self._tell({'failed': fault})
        self._want_another(pool)
        if self._wanted is not None and self._failures >= _FAILURES:
            raise ConnectionError

    def _want_another(self, pool: int) -> None:
        if self._wanted is not None:
            self._wanted[pool] += 1

    # messages

    def _wait(self) -> None:
        waits = [50] if self._has_strays or self._killed else []
        if self._is_short:
            waits.append(max(0, math.ceil(self._rest() * 1000)))
        for descriptor, _ in self._poll.poll(min(waits, default=None)):
            if descriptor == self._control.fileno():
                self._obey()
            elif slot := self._by_descriptor.get(descriptor):
                if slot.processes and descriptor == slot.pidfd:
                    self._reap(slot)
                else:
                    self._hear(slot)

    def _obey(self) -> None:
        data = self._control.recv(4096)
        if not data:
            raise ConnectionError
        order = json.loads(data)
        if 'retire' in order:
            self._wanted = None
            for slot in [slot for slot in self._children.values() if not slot.is_launched]:
                self._kill(slot)
            return
        (verb,) = order.keys() & {'launch', 'terminate', 'kill'}
        slot = self._children.get(order[verb])
        if verb == 'launch':
            self._want_another(order['pool'])
        if slot is None:
            return
        if verb == 'launch':
            slot.is_launched = True
            self._launch_time = time.monotonic()
            if order['limits'] != DEFAULT_LIMITS:
                self._limit(slot, order['limits'])
                self._tell({'armed': slot.id})
        elif verb == 'terminate':
            slot.terminate()
        else:
            self._kill(slot)

    def _kill(self, slot: Slot) -> None:
        slot.kill()
        if slot.has_keeper:
            self._killed.add(slot)

    def _limit(self, slot: Slot, limits: dict[str, int]) -> None:
        with contextlib.suppress(OSError):  # a limit below what it uses already: the kernel's word stands
            self._groups.limit(slot.number, limits, slot.has_keeper)
        if not slot.has_keeper and slot.processes and limits['disk_mib'] != DEFAULT_LIMITS['disk_mib']:
            ground.resize(slot.processes[-1][1], limits['disk_mib'])

    def _hear(self, slot: Slot) -> bool:
        """Takes one packet of a child; False when there is none."""
        try:
            packet = slot.status.recv(65536, socket.MSG_DONTWAIT)
        except OSError:
            return False
        match packet[:1]:
            case b'R':
                self._failures = 0
                slot.is_announced = True
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('3i', *slot.descriptors))
                self._control.sendmsg([json.dumps({'new': slot.id, 'pool': slot.pool}).encode()], [rights])
                slot.close_descriptors()
                if not slot.has_keeper:
                    self._ignore(slot.status.fileno())
                    slot.status.close()
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
            for slot in list(self._children.values()):
                while slot.processes and slot.reap():
                    slot.kill_last()
                if not slot.processes:
                    del self._children[slot.id]
                elif time.monotonic() > end:
                    slot.kill_last()
            time.sleep(0.005)
        self._groups.remove()
        if self._plan.tier < 2:
            with contextlib.suppress(OSError):
                for name in os.listdir(self._plan.work):
                    os.rmdir(f'{self._plan.work}/{name}')
                os.rmdir(self._plan.work)
