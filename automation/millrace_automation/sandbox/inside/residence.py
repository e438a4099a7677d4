"""Init's part of a process that runs one run after the other: it lets each begin, looks whether it left anything, and ends what did.

On the line, packets from the supervisor: A and the three descriptors of the next run, with which the process waits; G that run begins, with
them when they did not come before; T ask the present run to stop. To it: P parked, with the run's seconds of processor time and its peak of memory in KiB; E (why) the process is
being ended. The script says D on the begin socket when its run is over and put in order; what it says decides nothing but when to look.
"""

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Mapping

from .inspection import Inspection, clock_of

KEEP = b'K'  # to the script when it may begin and is to be kept
ARM = b'A'
RUN = b'G'
TERMINATE = b'T'
PARKED = b'P'
ENDED = b'E'
DONE = b'D'
DESCRIPTORS = 3  # of a run: standard output, standard error, channel
_IDLE_SECONDS = 0.05  # of processor time that a parked process may use: it stands still
_LOOK_SECONDS = 2.0  # between two looks whether it does
_RUNNING_LOOK_SECONDS = 0.25
_CPUS = os.cpu_count() or 1


class Residence:
    """Raises OSError where the process cannot be looked at: it is then used once."""

    def __init__(
        self, line: socket.socket, begin: socket.socket, script: int, begin_inside: int, has_namespaces: bool, limits: Mapping[str, int]
    ):
        self.line = line
        line.setblocking(False)  # Python's recv_fds ignores its flags
        self.is_parked = False
        self._is_armed = False
        self._begin = begin
        self._script = script
        self._allowance = limits['cpu_seconds']
        self._inspection = Inspection(script, begin_inside, has_namespaces, limits)
        self._has_namespaces = has_namespaces
        self._is_stopping = False
        self._began = time.monotonic()
        self._spent = 0.0  # of its processor time when it began to run or to stand still

    @property
    def look_seconds(self) -> float:
        """How long `excess` may be left alone."""
        return _LOOK_SECONDS if self.is_parked else _RUNNING_LOOK_SECONDS

    def stop(self) -> None:
        """Asks the present run to stop. One that is over was not meant."""
        if not self.is_parked:
            self._is_stopping = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._script, signal.SIGTERM)

    def obey(self) -> bool:
        """Takes a packet of the supervisor, if there is one; False when the process is to be ended."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.line, 64, DESCRIPTORS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        try:
            if packet in (ARM, RUN) and self.is_parked and len(descriptors) == (0 if self._is_armed else DESCRIPTORS):
                return (self._is_armed or self._arm(descriptors)) and (packet == ARM or self._run())
            if packet == TERMINATE:
                self.stop()
                return True
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _arm(self, descriptors: list[int]) -> bool:
        self._is_armed = True
        try:
            socket.send_fds(self._begin, [ARM], descriptors, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _run(self) -> bool:
        if self._inspection.processor_seconds() > self._spent + _IDLE_SECONDS:
            self._tell(ENDED + b'awake')
            return False
        self.is_parked = self._is_armed = False
        self._began = time.monotonic()
        return True

    def done(self) -> bool:
        """The script says that it is, or has ended: parks its process, or returns False when it is to be ended."""
        try:
            if self._begin.recv(64) != DONE:
                return False
        except OSError:
            return False
        if self._is_armed and not self.obey():  # that the run began was said before the script heard of it
            return False
        fault = 'stopped' if self._is_stopping else 'order' if self.is_parked else self._inspection.fault()
        if not fault:
            try:
                used, peak = self._inspection.account()
                self._spent = self._inspection.processor_seconds()
                self._allow()
            except (OSError, ValueError):
                fault = 'hidden'
        if fault:
            return self._tell(ENDED + fault.encode()) and False
        self.is_parked = True
        return self._tell(b'%s%f %d' % (PARKED, used, peak))

    def _allow(self) -> None:
        """The next run's allowance of processor time. The kernel counts whole seconds."""
        _, hard = resource.prlimit(self._script, resource.RLIMIT_CPU)
        resource.prlimit(self._script, resource.RLIMIT_CPU, (int(self._spent) + 1 + self._allowance, hard))

    def excess(self) -> bool:
        """Whether it used more processor time than it may. A script may ignore what the soft limit sends it, so this is the hard one."""
        try:
            if self.is_parked:
                return self._inspection.processor_seconds() > self._spent + _IDLE_SECONDS
            if time.monotonic() - self._began < self._allowance / _CPUS:
                return False
            return any(self._used(pid) > self._allowance + 1 for pid in self._processes())
        except OSError:
            return False  # it ended meanwhile

    def _processes(self) -> list[int]:
        if not self._has_namespaces:
            return [self._script]
        return [int(name) for name in os.listdir('/proc') if name.isdigit() and name != '1']

    def _used(self, pid: int) -> float:
        with contextlib.suppress(OSError):
            return time.clock_gettime(clock_of(pid)) - (self._spent if pid == self._script else 0)
        return 0.0

    def _tell(self, packet: bytes) -> bool:
        """False when nobody listens."""
        try:
            self.line.send(packet)
        except OSError:
            return False
        return True
