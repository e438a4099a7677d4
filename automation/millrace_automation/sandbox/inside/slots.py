"""One child as its parent sees it, and how it comes to be.

With a keeper it is one process to the parent: init, which forks the script and reports its end. Without one it is two: the script, whose
end the parent sees itself, and the first process of its namespace, which the parent then ends.
"""

import _socket
import contextlib
import os
import resource
import signal
import time
from dataclasses import dataclass, field

from . import entry, ground, init
from .cgroup import Cgroups
from .pause import Pauses
from .plan import ChildPlan, Plan
from .script import Shared
from .system import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    WAIT_ALL,
    clone,
    enter,
)

_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET


@dataclass(eq=False)
class Slot:
    id: int
    """Never used twice by a parent, unlike the number."""
    number: int
    """Decides its user, its control groups, its namespaces and its folder."""
    status: _socket.socket
    descriptors: tuple[int, ...]
    """The supervisor's ends: channel, standard output, standard error. Handed over with the announcement."""
    kills_before: int
    """Processes that the kernel had killed in the slot's control group, for memory, before this child."""
    processes: list[tuple[int, int]] = field(default_factory=list)
    """Pid and pidfd of those that the parent has not reaped, in the order in which they end."""
    has_keeper: bool = True
    pool: int = 0
    is_announced: bool = False
    is_launched: bool = False
    is_told: bool = False
    kill_time: float | None = None
    report: list[str] | None = None
    """What init said last: see there. Without one, the same from the script's own end."""
    fault: str = ''

    @property
    def pidfd(self) -> int:
        """Of the process that ends next."""
        return self.processes[0][1]

    def send(self, packet: bytes) -> None:
        try:
            self.status.send(packet, _socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has ended, or is about to be ended

    def terminate(self) -> None:
        if self.has_keeper:
            self.send(b'T')
        elif self.report is None:
            os.kill(self.processes[0][0], signal.SIGTERM)

    def kill(self) -> None:
        if self.kill_time is None:
            self.kill_time = time.monotonic()
            if self.has_keeper:
                self.send(b'K')
            else:
                self.kill_last()

    def kill_last(self) -> None:
        """Ends everything in the sandbox that is not reaped."""
        if self.processes:
            os.kill(self.processes[-1][0], signal.SIGKILL)

    def reap(self) -> resource.struct_rusage | None:
        """What the next of its processes to end has used, if that one has ended."""
        pid, pidfd = self.processes[0]
        ended, status, used = os.wait4(pid, os.WNOHANG | WAIT_ALL)
        if not ended:
            return None
        os.close(pidfd)
        del self.processes[0]
        if not self.has_keeper and self.report is None:
            self.report = [str(status), str(used.ru_utime + used.ru_stime), str(used.ru_maxrss), '-']
        return used

    def close(self) -> None:
        self.status.close()
        self.close_descriptors()

    def close_descriptors(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()

    def account(self, used: resource.struct_rusage | None, peak_kib: int, kills: int) -> dict:
        """How it ended. Without init's own report, everything was killed."""
        status, cpu, rss, cause = self.report or _killed(used)
        ended = os.waitstatus_to_exitcode(int(status))
        is_killed = ended == -signal.SIGKILL
        return {
            'code': ended if ended >= 0 else None,
            'signal': -ended if ended < 0 else None,
            'cpu': float(cpu),
            'peak': peak_kib or int(rss),
            'oom': is_killed and (cause == 'memory' or kills > self.kills_before),
        }


def _killed(used: resource.struct_rusage | None) -> list[str]:
    """The report of an init that was killed itself."""
    cpu, rss = (used.ru_utime + used.ru_stime, used.ru_maxrss) if used else (0.0, 0)
    return [str(int(signal.SIGKILL)), str(cpu), str(rss), '-']


class Maker:
    """Forks children that prepare themselves. `is_apart`: some of them have no keeper. `shared_processes` as in their plans."""

    def __init__(self, plan: Plan, shared: Shared, groups: Cgroups, shared_processes: int, is_apart: bool):
        self._plan = plan
        self._shared = shared
        self._groups = groups
        self._shared_processes = shared_processes
        self._pauses = Pauses(plan.most) if is_apart else None
        self._namespaces = ground.Namespaces() if is_apart else None
        self._own = os.open('/proc/self/ns/pid', os.O_RDONLY | os.O_CLOEXEC)
        self._plans: dict[tuple[int, bool], ChildPlan] = {}

    def _plan_of(self, number: int, has_keeper: bool) -> ChildPlan:
        return ChildPlan(
            plan=self._plan,
            slot=number,
            groups=self._groups.paths(number),
            entrances=self._groups.entrances(number),
            has_memory_group='memory' in self._groups.folders,
            uid=self._plan.uids[number] if self._plan.uids else None,
            has_keeper=has_keeper,
            shared_processes=self._shared_processes,
        )

    def start(self, number: int, has_keeper: bool, id: int) -> Slot:
        """The slot's control groups are prepared."""
        if (number, has_keeper) not in self._plans:
            self._plans[number, has_keeper] = self._plan_of(number, has_keeper)
        plan = self._plans[number, has_keeper]
        if not plan.has_namespaces:
            with contextlib.suppress(FileExistsError):
                os.mkdir(plan.work, 0o700)
            if plan.uid is not None:
                os.chown(plan.work, plan.uid, plan.uid)
        ours, status = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)  # without what the module adds for each
        server_channel, script_channel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        output, output_end = os.pipe()
        error, error_end = os.pipe()
        if plan.uid is not None:  # it opens them by name too, as /dev/stderr
            os.fchown(output_end, plan.uid, plan.uid)
            os.fchown(error_end, plan.uid, plan.uid)
        slot = Slot(id, number, ours, (server_channel.detach(), output, error), self._groups.usage(number).kills, has_keeper=has_keeper)
        ends = (output_end, error_end, script_channel.detach(), status.detach())
        try:
            if plan.has_keeper:
                self._with_keeper(plan, slot, ends)
            else:
                self._without(plan, slot, ends)
        finally:
            for descriptor in ends:
                os.close(descriptor)
        return slot

    def _with_keeper(self, plan: ChildPlan, slot: Slot, ends: tuple[int, ...]) -> None:
        pid, pidfd = clone(_NAMESPACES if plan.has_namespaces else 0)
        if pid == 0:
            try:
                init.run(plan, self._shared, ends)
            finally:
                os._exit(1)  # whatever happens, a child never goes on as a second parent
        slot.processes.append((pid, pidfd))
        if plan.has_namespaces:
            try:
                ground.map_user(pidfd, plan.uid)
                slot.send(b'G')
            except OSError as fault:
                slot.fault = f'{fault.filename or "user map"}: {fault.strerror}'
                os.kill(pid, signal.SIGKILL)

    def _without(self, plan: ChildPlan, slot: Slot, ends: tuple[int, ...]) -> None:
        namespaces = self._namespaces.of(plan.slot)
        first = self._pauses.start(plan.slot)
        slot.processes.append(first)
        enter(first[1], CLONE_NEWPID)  # only for what is forked from now on
        script = clone(0)
        if script[0] == 0:
            try:
                entry.run(plan, self._shared, ends, first[1], namespaces)
            finally:
                os._exit(1)
        enter(self._own, CLONE_NEWPID)
        slot.processes.insert(0, script)
