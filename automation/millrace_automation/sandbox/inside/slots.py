"""One child as its parent sees it."""

import os
import resource
import signal
import socket
import time
from dataclasses import dataclass


@dataclass(eq=False)
class Slot:
    number: int
    pid: int
    status: socket.socket
    descriptors: tuple[int, ...]
    """The supervisor's ends: channel, standard output, standard error. Handed over with the announcement."""
    kills_before: int
    """Processes that the kernel had killed in the slot's control group, for memory, before this child."""
    is_announced: bool = False
    is_launched: bool = False
    kill_time: float | None = None
    report: dict | None = None
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

    def account(self, used: resource.struct_rusage, peak_kib: int, kills: int) -> dict:
        """How it ended. Without init's own report, everything was killed."""
        report = self.report or {'status': signal.SIGKILL, 'cpu': used.ru_utime + used.ru_stime, 'rss': used.ru_maxrss, 'cause': None}
        ended = os.waitstatus_to_exitcode(report['status'])
        is_killed = ended == -signal.SIGKILL
        return {
            'code': ended if ended >= 0 else None,
            'signal': -ended if ended < 0 else None,
            'cpu': report['cpu'],
            'peak': peak_kib or report['rss'],
            'oom': is_killed and (report['cause'] == 'memory' or kills > self.kills_before),
        }
