"""Tells the lines of a build as they come, and that it goes on when none come."""

import asyncio
import contextlib

import grpc
from millrace.automations.v1 import environment_build_service_pb2 as pb

from millrace_automation.server import log

_SOON_SECONDS = 0.2
_SIGN_SECONDS = 3.0
_RETRY_SECONDS = 0.5
_MOST_AT_ONCE = 200
_MOST_LINES = 5000
_MOST_CHARACTERS = 2000


class Lost(Exception):
    """Somebody else has the build now."""


class Teller:
    """`call` sends one request to the service with a fresh token."""

    def __init__(self, call, claim: pb.ClaimEnvironmentBuildResponse):
        self._call = call
        self._claim = claim
        self._first = claim.next_line
        self._lines: list[str] = []
        self._count = 0
        self._is_closed = False
        self._news = asyncio.Event()

    def say(self, line: str) -> None:
        self._count += 1
        if self._count <= _MOST_LINES:
            self._lines.append(line[:_MOST_CHARACTERS])
        elif self._count == _MOST_LINES + 1:
            self._lines.append('more lines are left out')
        self._news.set()

    def close(self) -> None:
        """Nothing more comes: `run` ends when all is told."""
        self._is_closed = True
        self._news.set()

    async def run(self) -> None:
        """Until it is closed. Raises Lost."""
        while not self._is_closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _SIGN_SECONDS)
                await asyncio.sleep(_SOON_SECONDS)  # lines come in swarms
            await self._tell()

    async def _tell(self) -> None:
        """Tells what there is, however long it takes."""
        while True:
            self._news.clear()
            lines = self._lines[:_MOST_AT_ONCE]
            claim = self._claim
            request = pb.TellEnvironmentBuildRequest(digest=claim.digest, epoch=claim.epoch, first_line=self._first, lines=lines)
            await send(self._call, 'TellEnvironmentBuild', request)
            self._first += len(lines)
            del self._lines[: len(lines)]
            if not self._lines:
                return


async def send(call, method: str, request: object) -> None:
    """Repeats it while the service is away. Raises Lost."""
    while True:
        try:
            await call(method, request)
            return
        except grpc.aio.AioRpcError as fault:
            if fault.code() is grpc.StatusCode.ABORTED:
                raise Lost(fault.details()) from None
            log.warn('a build could not be told of; will try again', why=f'{fault.code().name}: {fault.details()}')
            await asyncio.sleep(_RETRY_SECONDS)
