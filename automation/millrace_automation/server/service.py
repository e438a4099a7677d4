"""The rpcs of the contract, in its order."""

import asyncio
import os

import grpc
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc

from millrace_automation.sandbox import Sandbox
from millrace_automation.sandbox.interpreter import PLATFORM

from . import checks
from .errors import RpcError, invalid, not_found
from .jobs import CLAIM_BYTES, Job, Jobs, Refused, input_fault
from .outbox import Outbox
from .results import Stop
from .session import Request, Sessions
from .validation import Validation

NAME = 'millrace.runner.v1.RunnerService'
KEEP_ALIVE_SECONDS = 5.0
_RETRY_SECONDS = 1.0


class RunnerService(pb_grpc.RunnerServiceServicer):
    def __init__(self, server_id: str, sandbox: Sandbox, jobs: Jobs, sessions: Sessions, validation: Validation, minimum_tier: int):
        self._server_id = server_id
        self._sandbox = sandbox
        self._jobs = jobs
        self._sessions = sessions
        self._validation = validation
        self._minimum_tier = minimum_tier
        requests = (pb.RunRequest, pb.CancelRequest, pb.ValidateSourceRequest, pb.DescribeRunnerRequest, Request)
        checks.require_known_rules(*(request.DESCRIPTOR for request in requests))

    async def Run(self, request: pb.RunRequest, context: grpc.aio.ServicerContext) -> None:
        _check(request)
        if message := input_fault(request.job):
            raise invalid([('job.input_json', message.removeprefix('input_json '))])
        news = asyncio.Event()
        refusals: list[Refused] = []

        def refuse(_: Job, refused: Refused) -> None:
            refusals.append(refused)
            news.set()

        claim_id = request.job.claim_id or os.urandom(CLAIM_BYTES)
        try:
            job = self._jobs.start(request.job, claim_id, lambda _: news.set(), refuse, is_held=False)
        except Refused as refused:
            raise RpcError(refused.code, str(refused), retry_seconds=_RETRY_SECONDS) from None
        try:
            while not await _tell(job.outbox, context):
                if refusals:
                    raise RpcError(refusals[0].code, str(refusals[0]), retry_seconds=_RETRY_SECONDS)
                news.clear()
                try:
                    await asyncio.wait_for(news.wait(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    await context.write(pb.RunResponse(keep_alive=pb.RunResponse.KeepAlive()))
        finally:
            job.stop(Stop.CANCEL)  # nothing when it has ended
            job.outbox.close()

    async def Session(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._sessions.serve(context)

    async def Cancel(self, request: pb.CancelRequest, context: grpc.aio.ServicerContext) -> pb.CancelResponse:
        _check(request)
        jobs = self._jobs.find(request.execution_id)
        if not jobs:
            raise not_found('execution', request.execution_id)
        for job in jobs:
            job.stop(Stop.CANCEL)
        return pb.CancelResponse()

    async def ValidateSource(self, request: pb.ValidateSourceRequest, context: grpc.aio.ServicerContext) -> pb.ValidateSourceResponse:
        _check(request)
        return await self._validation.run(request.source)

    async def DescribeRunner(self, request: pb.DescribeRunnerRequest, context: grpc.aio.ServicerContext) -> pb.DescribeRunnerResponse:
        return pb.DescribeRunnerResponse(
            server_id=self._server_id,
            sandbox_tier=self._sandbox.tier,
            minimum_tier=self._minimum_tier,
            limits=self._sandbox.limits,
            slots=self._jobs.slots,
            running=self._jobs.running_count,
            python_version=self._sandbox.python_version,
            packages=self._sandbox.packages,
            probes=[pb.Probe(name=name, refused=refused) for name, refused in self._sandbox.probes],
            platform=PLATFORM,
        )


async def _tell(outbox: Outbox, context: grpc.aio.ServicerContext) -> bool:
    """Writes what is new, frame by frame, and says whether that was the end. What is written counts as confirmed."""
    while outbox.has_news:
        item, _ = outbox.take(64 * 1024)
        if item.HasField('started'):
            await context.write(pb.RunResponse(started=item.started))
        for line in item.lines:
            await context.write(pb.RunResponse(line=line))
        if item.HasField('progress'):
            await context.write(pb.RunResponse(progress=item.progress))
        outbox.confirm(outbox.confirmed_lines + len(item.lines), started=True)
        if item.HasField('result'):
            await context.write(pb.RunResponse(result=item.result))
            return True
    return False


def _check(request: object) -> None:
    if faults := checks.faults_of(request):
        raise invalid(faults)
