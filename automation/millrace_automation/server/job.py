"""One job, from the launch of its process to its result.

  launching -> running -> verdict (it returned or raised) -> ended -> its process is gone
                      `-> stopping: SIGTERM, grace, kill -> ended
A job whose process is kept ends when that stands still, a job without a verdict when its process is gone. The first cause decides: a job
that is asked to stop after its verdict ends with its verdict, and a result that comes while it is being stopped still counts unless the
cause was a timeout.
"""

import asyncio
import enum
import os
import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp
from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import Exited, Output, Parsed, Process, Progress, Raised, Returned, Sandbox, Settled, Used
from millrace_automation.sandbox import Log as Logged

from . import lines, log
from .artifacts import Uploads
from .egress import Egress, Passage
from .masks import Masks, values_of
from .outbox import Outbox
from .results import Stop, note_usage, result
from .terms import limits_of, reuse_of, seconds

LAUNCH_SECONDS = 30.0
FLUSH_SECONDS = 0.2
START_SECONDS = 0.05  # how long a start waits for the first line or the result
PROGRESS_SECONDS = 0.1  # a script may report without a pause; only the newest report counts
REST_BYTES = 128 * 1024  # of log after a kill: what the pipes held, unless the script has made them larger
AGAIN_SECONDS = 0.25  # until SIGTERM is repeated: Python does not see one that comes just as a call begins to block, as long as it blocks
LINGER_SECONDS = 5.0  # how long a process may stay after its verdict
GONE_SECONDS = 1.0  # and after its result was told
_ISOLATIONS = (spec_pb2.AutomationSpec.FRESH, spec_pb2.AutomationSpec.REUSED)
_CPUS = os.cpu_count() or 1
_STREAMS = {'stdout': lines.STDOUT, 'stderr': lines.STDERR}


class LaunchError(Exception):
    """The sandbox has no process to give; the script did not start."""


class Phase(enum.Enum):
    LAUNCHING = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


class Job:
    def __init__(self, request: job_pb2.Job, claim_id: bytes, changed: Callable[[Outbox], None], uploads: Uploads):
        self.execution_id = request.execution_id
        self.claim_id = claim_id
        self.outbox = Outbox(request.execution_id, claim_id, changed)
        self._uploads = uploads
        self.phase = Phase.LAUNCHING
        self.accept_time = time.monotonic()
        self.start_seconds = 0.0
        self.limits = limits_of(request.resources)
        self._start_to_close = seconds(request.start_to_close, 300) if request.HasField('start_to_close') else 300.0
        self._heartbeat = seconds(request.heartbeat, 0)
        self._grace = seconds(request.grace, 0) if request.HasField('grace') else 10.0
        self._log = lines.Log()
        self._splitters = {stream: lines.Splitter() for stream in _STREAMS.values()}
        self._masks = Masks(request.secrets)
        self._process: Process | None = None
        self._passage: Passage | None = None
        self._started: job_pb2.Started | None = None
        self._stop: Stop | None = None
        self._is_killed = False
        self._verdict: Returned | Raised | None = None
        self._used: Used | None = None
        self._exit: Exited | None = None
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._progress: Progress | None = None

    async def run(self, sandbox: Sandbox, egress: Egress, request: job_pb2.Job, traceparent: str) -> None:
        """Runs it to its end. Raises LaunchError when it did not start."""
        try:
            async with asyncio.timeout(LAUNCH_SECONDS):
                if request.HasField('egress'):
                    self._passage = await egress.open(request.egress, self._tell_network)
                self._process = await sandbox.launch(
                    request.source,
                    request.input_json or '{}',
                    self.limits,
                    environment=request.environment or 'base',
                    traceparent=traceparent,
                    reuse=reuse_of(request),
                    network=self._passage and self._passage.theirs,
                    values=values_of(request),
                )
        except Exception as fault:
            await self._leave_network()
            raise LaunchError(str(fault)) from fault
        finally:
            del request  # up to 1.25 MiB that is not needed any longer
            self.phase = Phase.RUNNING
        self._begin(sandbox)
        self._uploads.begin(self._process.answer, self._deliver)
        try:
            async for event in self._process.events():
                for part in self._masks.parts(event):
                    self._take(part)
                    await self._uploads.take(part)
                    if self.outbox.is_full:
                        await self.outbox.room()
        except Exception as fault:
            log.error('the sandbox failed while a job ran', fault, execution=self.execution_id)
            self._stop = self._stop or Stop.SANDBOX
            self._process.kill()
        finally:
            await self._leave_network()
            if self.phase is not Phase.ENDED:
                self._finish()
            self._cancel(*self._timers)

    @property
    def is_reused(self) -> bool:
        """Its process had run before."""
        return self._process is not None and self._process.is_reused

    def stop(self, cause: Stop) -> None:
        """Asks it to stop: SIGTERM, then the grace period, then the end of all its processes."""
        if self._stop or self._verdict or self.phase is Phase.ENDED:
            return
        self._stop = cause
        if self._process:
            self._terminate()

    def kill(self) -> None:
        """Ends all its processes now."""
        self._is_killed = True
        self._log.end_within(REST_BYTES)
        if self._process:
            self._process.kill()
        self._uploads.close()
        self.outbox.unbound()

    def fail(self, ended: job_pb2.Result) -> None:
        """Ends it with a result of the server's own, before it was launched."""
        self._end(ended, time.time())

    def _terminate(self) -> None:
        self._process.terminate()
        self._after(AGAIN_SECONDS, 'again', self._process.terminate)
        self._after(self._grace, 'grace', self.kill)

    def _begin(self, sandbox: Sandbox) -> None:
        self.start_seconds = time.monotonic() - self.accept_time
        isolation = _ISOLATIONS[self._process.is_reused]
        self._started = job_pb2.Started(time=_now(), sandbox_tier=sandbox.tier, limits=sandbox.limits, isolation=isolation)
        self.outbox.start(self._started, is_due=False, is_known=not self._process.may_be_kept)  # else the script's first word says it
        self._after(START_SECONDS, 'start', self._tell_start)
        if self._is_killed or self._stop:  # asked for while the process was made
            self._process.kill() if self._is_killed else self._terminate()
            return
        self._after(self._start_to_close, 'start_to_close', self.stop, Stop.START_TO_CLOSE)
        self._expect_heartbeat()

    def _tell_start(self) -> None:
        del self._timers['start']
        self.outbox.tell_start()

    def _know_isolation(self, is_kept: bool) -> None:
        self._started.isolation = _ISOLATIONS[is_kept]
        self.outbox.know_start()

    def _expect_heartbeat(self) -> None:
        if self._heartbeat:
            self._after(self._heartbeat, 'heartbeat', self._miss_heartbeat)

    def _miss_heartbeat(self) -> None:
        if self.outbox.is_full or self._uploads.is_full:
            self._expect_heartbeat()  # it is we who do not listen
        else:
            self.stop(Stop.HEARTBEAT)

    def _take(self, event: object) -> None:
        if self.phase is Phase.ENDED:
            return
        match event:
            case Output():
                self._split(_STREAMS[event.stream], event.data, _timestamp(event.time))
            case Logged():
                for text, partial in lines.pieces(event.text):
                    self._deliver(lines.LOG, lines.well_formed(event.level)[:32], text, partial, _timestamp(event.time))
            case Progress():
                self._expect_heartbeat()
                self._progress = event
                if 'progress' not in self._timers:
                    self._report()
            case Parsed():
                self._know_isolation(event.has_main)
            case Returned() | Raised():
                if self._verdict is None:
                    self._verdict = event
                    self._cancel('start_to_close', 'heartbeat')
                    if not self._process.has_ended:
                        self._after(LINGER_SECONDS, 'linger', self.kill)
            case Used():
                most = (time.monotonic() - self.accept_time) * _CPUS
                self._used = Used(min(event.cpu_seconds, most), event.peak_memory_kib)
            case Settled():
                if self._used and not self._stop and not self._passage:  # else the last word is about the network
                    self._finish()
                    self._after(GONE_SECONDS, 'linger', self.kill)
            case Exited():
                self._exit = event

    def _split(self, stream: int, data: bytes, time: Timestamp) -> None:
        splitter = self._splitters[stream]
        has_delivered = False
        for text, partial in splitter.feed(data):
            self._deliver(stream, '', text, partial, time)
            has_delivered = True
        if not splitter.is_unfinished:
            self._cancel(stream)
        elif has_delivered or stream not in self._timers:
            self._after(FLUSH_SECONDS, stream, self._flush, stream)

    def _flush(self, stream: int) -> None:
        del self._timers[stream]
        for text, partial in self._splitters[stream].flush():
            self._deliver(stream, '', text, partial, _now())

    def _deliver(self, stream: int, level: str, text: bytes, partial: bool, time: Timestamp) -> None:
        if entry := self._log.add(stream, level, text, partial):
            self.outbox.add(entry, time)

    def _tell_network(self, level: str, text: str) -> None:
        for told in self._masks.parts(Logged(level, text, time.time())):
            for piece, partial in lines.pieces(told.text):
                self._deliver(lines.SYSTEM, level, piece, partial, _now())

    async def _leave_network(self) -> None:
        if self._passage:
            await self._passage.close()

    def _report(self) -> None:
        self._timers.pop('progress', None)
        if report := self._progress:
            self._progress = None
            message = lines.well_formed(report.message)[:500]
            self.outbox.progress(job_pb2.ProgressReport(fraction=min(max(report.fraction, 0.0), 1.0), message=message))
            self._after(PROGRESS_SECONDS, 'progress', self._report)

    def _finish(self) -> None:
        self._cancel(*self._timers)
        if self._progress:
            self._report()
            self._cancel('progress')
        for name, stream in _STREAMS.items():
            self._split(stream, self._masks.close(name), _now())
            self._cancel(stream)
            for text, partial in self._splitters[stream].close():
                self._deliver(stream, '', text, partial, _now())
        ended = result(self._stop, self._verdict, self._exit, self.limits, self._start_to_close, self._heartbeat)
        if used := self._exit or self._used:
            note_usage(ended, used)
        self._end(ended, self._exit.time if self._exit else time.time())

    def _end(self, ended: job_pb2.Result, at: float) -> None:
        self.phase = Phase.ENDED
        self._uploads.close()
        ended.time.CopyFrom(_timestamp(at))
        ended.log_count, ended.log_sha256 = self._log.count, self._log.sha256
        ended.log_bytes, ended.dropped_bytes = self._log.kept_bytes, self._log.dropped_bytes
        self.outbox.unbound()
        self.outbox.end(ended)

    def _after(self, delay: float, key: object, call: Callable[..., None], *arguments: object) -> None:
        """Sets a timer, in place of an earlier one of the same key."""
        self._cancel(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay, call, *arguments)

    def _cancel(self, *keys: object) -> None:
        for key in keys:
            if timer := self._timers.pop(key, None):
                timer.cancel()


def _now() -> Timestamp:
    return _timestamp(time.time())


def _timestamp(at: float) -> Timestamp:
    whole = int(at)
    return Timestamp(seconds=whole, nanos=int((at - whole) * 1e9))
