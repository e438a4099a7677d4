"""Announces the server to the executions area, again and again, for as long as it lives."""

import asyncio
import contextlib
import random
import time

import grpc
from millrace.executions.v1 import server_service_pb2, server_service_pb2_grpc

from . import log
from .auth import Signer

PROTOCOL = 1
_DEADLINE_SECONDS = 5.0
_SAY_SECONDS = 1.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.25, 10.0
_LEAST_SECONDS, _DEFAULT_SECONDS = 0.1, 10.0


class Registration:
    """`state` is `off` when the server runs alone, `waiting` until the first answer, then `registered` or `failing`."""

    def __init__(self, url: str, signer: Signer | None, announcement: server_service_pb2.RegisterServerRequest):
        self.state = 'waiting' if url else 'off'
        self.fault = ''
        self.last_time: float | None = None
        self._url = url
        self._signer = signer
        self._announcement = announcement
        self._hurry = asyncio.Event()
        self._has_said = asyncio.Event()

    def drain(self) -> None:
        """Says at once that nothing new is taken."""
        self._announcement.draining = True
        self._hurry.set()

    async def said(self) -> None:
        """Returns when it is known that this server drains, or soon after when nobody can be told."""
        if self._url:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_said.wait(), _SAY_SECONDS)

    async def run(self) -> None:
        if not self._url:
            return
        options = [('grpc.lb_policy_name', 'round_robin'), ('grpc.keepalive_time_ms', 30_000)]
        async with grpc.aio.insecure_channel(self._url, options=options) as channel:
            stub = server_service_pb2_grpc.ServerServiceStub(channel)
            failures = 0
            while True:
                try:
                    delay = await self._register(stub)
                    failures = 0
                except grpc.aio.AioRpcError as fault:
                    self._fail(f'{fault.code().name}: {fault.details()}')
                    most = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2**failures)
                    delay = random.uniform(most / 2, most)
                    failures = min(failures + 1, 10)
                await self._pause(delay)

    async def _register(self, stub: server_service_pb2_grpc.ServerServiceStub) -> float:
        is_draining = self._announcement.draining
        metadata = (('authorization', f'Bearer {self._signer.token("executions")}'),)
        answer = await stub.RegisterServer(self._announcement, timeout=_DEADLINE_SECONDS, metadata=metadata)
        if is_draining:
            self._has_said.set()
        if self.state != 'registered':
            log.info('registered', executions=self._url, server=self._announcement.server_id)
        self.state, self.fault, self.last_time = 'registered', '', time.time()
        return max(_LEAST_SECONDS, answer.again_after_ms / 1000) if answer.again_after_ms else _DEFAULT_SECONDS

    def _fail(self, fault: str) -> None:
        if fault != self.fault:
            log.warn('cannot register; will try again', executions=self._url, why=fault)
        self.state, self.fault = 'failing', fault

    async def _pause(self, delay: float) -> None:
        try:
            await asyncio.wait_for(self._hurry.wait(), delay)
            self._hurry.clear()
        except TimeoutError:
            pass
