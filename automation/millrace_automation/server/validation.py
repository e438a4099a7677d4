"""Checks of source code, made in the sandbox beside the jobs: they have places of their own and never take a job's slot."""

import asyncio

from google.protobuf import json_format
from millrace.automations.v1 import automation_pb2
from millrace.runner.v1 import runner_service_pb2 as pb

from millrace_automation.sandbox import Limits, Raised, Returned, Sandbox

from . import log
from .errors import OVERLOADED, UNAVAILABLE, RpcError
from .jobs import Jobs

PLACES = 2
_MOST_WAITING = 16
_SECONDS = 10
_LIMITS = Limits(cpu_seconds=_SECONDS)
_RETRY_SECONDS = 1.0


class Validation:
    def __init__(self, sandbox: Sandbox, jobs: Jobs):
        self._sandbox = sandbox
        self._jobs = jobs
        self._places = asyncio.Semaphore(PLACES)
        self._waiting = 0

    async def run(self, source: str) -> pb.ValidateSourceResponse:
        if not self._jobs.has_sandbox or self._jobs.is_draining:
            raise RpcError(UNAVAILABLE, 'this server has no sandbox to check source in now', retry_seconds=_RETRY_SECONDS)
        if self._waiting >= _MOST_WAITING:
            raise RpcError(OVERLOADED, 'too many checks wait', retry_seconds=_RETRY_SECONDS)
        self._waiting += 1
        try:
            async with self._places:
                return await self._check(source)
        finally:
            self._waiting -= 1

    async def _check(self, source: str) -> pb.ValidateSourceResponse:
        try:
            process = await self._sandbox.launch(source, '{}', _LIMITS, mode='validate')
        except Exception as fault:
            log.error('a process for a check could not be made', fault)
            raise RpcError(UNAVAILABLE, 'the sandbox could not make a process', retry_seconds=_RETRY_SECONDS) from fault
        found: Returned | Raised | None = None
        try:
            async with asyncio.timeout(_SECONDS):
                async for event in process.events():
                    if isinstance(event, Returned | Raised):
                        found = event
        except TimeoutError:
            return _problem(f'It could not be checked within {_SECONDS} s.')
        finally:
            process.kill()
        if isinstance(found, Raised):
            return _problem(f'It could not be checked: {found.type}: {found.message}')
        if found is None:
            return _problem('It could not be checked: the check ended without an answer.')
        try:
            return json_format.Parse(found.output_json, pb.ValidateSourceResponse(), ignore_unknown_fields=True)
        except json_format.ParseError as fault:
            log.warn('the answer of a check cannot be read', why=str(fault))
            return _problem('It could not be checked: its schemas cannot be read.')


def _problem(message: str) -> pb.ValidateSourceResponse:
    return pb.ValidateSourceResponse(problems=[automation_pb2.SourceProblem(message=message)])
