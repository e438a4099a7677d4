"""The jobs of this server: who may start, who runs, and what is kept until it is confirmed."""

import asyncio
import time
from collections.abc import Callable
from functools import cache

from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import Sandbox

from . import log, metrics, telemetry
from .artifacts import Store, Uploads
from .checks import faults_of
from .egress import Egress
from .errors import OVERLOADED, UNAVAILABLE
from .job import Job, LaunchError
from .outbox import KEPT_BYTES, Outbox
from .results import Stop, invalid_input, json_fault
from .turns import NoTurn, Turns

CLAIM_BYTES = 16
_PAUSE_SECONDS = 1.0  # after a process could not be made, so that jobs are not handed to and fro without end
_KEPT_LEAST = 64 * 1024 * 1024
_ENDED_MOST = 1000  # jobs that have ended and are not confirmed
_STARTS = (metrics.starts.labels('fresh'), metrics.starts.labels('reused'))
_ended = cache(metrics.jobs.labels)


class Refused(Exception):
    """The job was not started. `code` is OVERLOADED or UNAVAILABLE."""

    def __init__(self, reason: str, code: str, message: str):
        super().__init__(message)
        self.reason = reason
        self.code = code


class Jobs:
    def __init__(self, sandbox: Sandbox, egress: Egress, slots: int, minimum_tier: int):
        self.slots = slots
        self.is_draining = False
        self.held: dict[bytes, Job] = {}
        """Jobs of a dispatcher by their claim, running or ended, until their result is confirmed."""
        self.running: set[Job] = set()
        """At most one for each slot, and those that were taken ahead and wait for theirs."""
        self.on_free: Callable[[], None] = lambda: None
        """Called when there may be room for a job again."""
        self._sandbox = sandbox
        self._egress = egress
        self._minimum_tier = minimum_tier
        self._kept_most = max(_KEPT_LEAST, 2 * KEPT_BYTES * slots)
        self._paused_until = 0.0
        self._turns = Turns(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self.artifacts: Store | None = None
        """Where the files go that scripts keep. None: nowhere."""

    @property
    def has_sandbox(self) -> bool:
        return self._sandbox.tier >= self._minimum_tier

    @property
    def running_count(self) -> int:
        """Without those that wait for a slot."""
        return self._turns.running

    @property
    def kept_bytes(self) -> int:
        return sum(job.outbox.kept_bytes for job in self.held.values())

    @property
    def free(self) -> int:
        """How many more jobs it would take now."""
        is_able = self.has_sandbox and not self.is_draining and time.monotonic() >= self._paused_until
        is_full = len(self.held) > self.slots + _ENDED_MOST or self.kept_bytes > self._kept_most
        return max(0, self.slots + self._turns.ahead - len(self.running)) if is_able and not is_full else 0

    def offer(self) -> int:
        """The same, for somebody who will send so many: they are taken, although slots may no longer change hands so fast by then."""
        self._turns.offer()
        return self.free

    def start(
        self,
        request: job_pb2.Job,
        claim_id: bytes,
        changed: Callable[[Outbox], None],
        refused: Callable[[Job, Refused], None],
        is_held: bool,
    ) -> Job:
        """Starts a job or raises Refused; a process that cannot be made is told to `refused`, later."""
        if not self.has_sandbox:
            raise Refused('SANDBOX_UNAVAILABLE', UNAVAILABLE, 'the sandbox is below the lowest tier that this server accepts')
        if self.is_draining:
            raise Refused('DRAINING', UNAVAILABLE, 'the server is being shut down')
        if not self._sandbox.has_environment(request.environment or 'base'):
            raise Refused('ENVIRONMENT_MISSING', UNAVAILABLE, 'this server does not have the environment of the job')
        if len(self.running) >= self._turns.most:
            raise self._no_slot()
        job = Job(request, claim_id, changed, Uploads(self.artifacts, request.execution_id, claim_id))
        if is_held:
            self.held[claim_id] = job
        if message := input_fault(request):
            job.fail(invalid_input(message))
            return job
        self.running.add(job)
        task = asyncio.create_task(self._run(job, request, refused))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def forget(self, claim_id: bytes) -> None:
        """Its result is durable."""
        if job := self.held.pop(claim_id, None):
            job.outbox.close()
            self._changed()

    def drop(self, job: Job) -> None:
        """It no longer counts: ends its processes and forgets its output."""
        self.held.pop(job.claim_id, None)
        job.outbox.close()
        job.kill()
        self._changed()

    def find(self, execution_id: str) -> list[Job]:
        return [job for job in self.running if job.execution_id == execution_id]

    def stop_all(self, cause: Stop) -> None:
        for job in list(self.running):
            job.stop(cause)

    def stop_held(self, cause: Stop) -> int:
        """Stops those of the dispatcher and says how many there were."""
        found = [job for job in self.running if job.claim_id in self.held]
        for job in found:
            job.stop(cause)
        return len(found)

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Waits for something that ends of jobs and confirmations bring about."""
        while not is_reached():
            self._news.clear()
            await self._news.wait()

    async def _run(self, job: Job, request: job_pb2.Job, refused: Callable[[Job, Refused], None]) -> None:
        with telemetry.job_span(request) as span:
            has_turn = False
            try:
                await self._turns.take()
                has_turn = True
                metrics.running.set(self._turns.running)
                await job.run(self._sandbox, self._egress, request, span.traceparent)
                ended = job.outbox.result
                outcome = job_pb2.Result.Outcome.Name(ended.outcome)
                span.note('millrace.outcome', outcome)
                _ended(outcome).inc()
                metrics.start_seconds.observe(job.start_seconds)
                _STARTS[job.is_reused].inc()
                log.debug('a job ended', execution=job.execution_id, outcome=outcome, type=ended.error_type, lines=ended.log_count)
            except NoTurn:
                self._give_back(job, self._no_slot(), refused)
            except LaunchError as fault:
                log.error('a process for a job could not be made', fault, execution=job.execution_id)
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._changed)
                self._give_back(job, Refused('SANDBOX_UNAVAILABLE', UNAVAILABLE, 'the sandbox could not make a process'), refused)
            finally:
                if has_turn:
                    self._turns.give()
                self.running.discard(job)
                metrics.running.set(self._turns.running)
                self._changed()

    def _no_slot(self) -> Refused:
        return Refused('NO_SLOT', OVERLOADED, f'all {self.slots} slots are in use')

    def _give_back(self, job: Job, refusal: Refused, refused: Callable[[Job, Refused], None]) -> None:
        metrics.jobs.labels('REFUSED').inc()
        self.held.pop(job.claim_id, None)
        refused(job, refusal)

    def _changed(self) -> None:
        self._news.set()
        self.on_free()


def input_fault(request: job_pb2.Job) -> str | None:
    """What keeps a job from being started, whoever sends it."""
    if faults := faults_of(request):
        return '; '.join(f'{field} {what}' for field, what in faults)
    if request.input_json and (fault := json_fault(request.input_json, is_object=True)):
        return f'input_json {fault}'
    return None
