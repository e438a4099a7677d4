"""One child as its parent sees it, and how it comes to be."""

import contextlib
import os
import resource
import signal
import socket
import time
from dataclasses import dataclass

from . import ground, init
from .channel import Channel
from .plan import ChildPlan
from .seccomp import Filter
from .system import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, clone

_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET


@dataclass(eq=False)
class Slot:
    id: int
    """Never used twice by a parent, unlike the number."""
    number: int
    """Decides its user, its control groups and its folder."""
    pid: int
    status: socket.socket
    descriptors: tuple[int, ...]
    """The supervisor's ends: channel, standard output, standard error. Handed over with the announcement."""
    kills_before: int
    """Processes that the kernel had killed in the slot's control group, for memory, before this child."""
    is_announced: bool = False
    is_launched: bool = False
    is_told: bool = False
    kill_time: float | None = None
    report: list[str] | None = None
    """What init said last: see there."""
    fault: str = ''

    def send(self, packet: bytes) -> None:
        try:
            self.status.send(packet, socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has ended, or is about to be ended

    def kill(self) -> None:
        if self.kill_time is None:
            self.kill_time = time.monotonic()
            self.send(b'K')

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


def start(plan: ChildPlan, filter: Filter, channel: Channel, id: int, kills_before: int) -> Slot:
    """Forks a child that prepares itself. Returns in the parent only."""
    if not plan.has_namespaces:
        with contextlib.suppress(FileExistsError):
            os.mkdir(plan.work, 0o700)
        if plan.uid is not None:
            os.chown(plan.work, plan.uid, plan.uid)
    ours, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server_channel, script_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output, output_end = os.pipe()
    error, error_end = os.pipe()
    if plan.uid is not None:  # it opens them by name too, as /dev/stderr
        os.fchown(output_end, plan.uid, plan.uid)
        os.fchown(error_end, plan.uid, plan.uid)
    pid = clone(_NAMESPACES if plan.has_namespaces else 0)
    if pid == 0:
        try:
            init.run(plan, filter, channel, (output_end, error_end, script_channel.fileno(), status.fileno()))
        finally:
            os._exit(1)  # whatever happens, a child never goes on as a second parent
    status.close()
    script_channel.close()
    os.close(output_end)
    os.close(error_end)
    slot = Slot(id, plan.slot, pid, ours, (server_channel.detach(), output, error), kills_before)
    if plan.has_namespaces:
        try:
            ground.map_user(pid, plan.uid)
            slot.send(b'G')
        except OSError as fault:
            slot.fault = f'{fault.filename or "user map"}: {fault.strerror}'
            os.kill(pid, signal.SIGKILL)
    return slot
