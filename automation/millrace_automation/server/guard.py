"""Stands before every rpc: who may call, how long it may take, and what its faults look like. Refuses what has no policy."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc
from millrace.options.v1 import policy_pb2

from . import metrics, telemetry
from .auth import Verifier
from .errors import RpcError, abort, unexpected

_UNARY_MS = 15_000
_Behaviour = Callable[[object, grpc.aio.ServicerContext], Awaitable[object]]


class Guard(grpc.aio.ServerInterceptor):
    """Rpcs that answer a stream must be coroutines that write to the context, so that their cleanup runs when a call is cancelled."""

    def __init__(self, verifier: Verifier, policies: dict[str, policy_pb2.MethodPolicy], open_services: tuple[str, ...]):
        self._verifier = verifier
        self._policies = policies
        self._open = tuple(f'/{service}/' for service in open_services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        policy = self._policies.get(details.method)
        if handler is None or (policy is None and details.method.startswith(self._open)):
            return handler
        coders = (handler.request_deserializer, handler.response_serializer)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._wrap(details, policy, handler.stream_stream, None), *coders)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._wrap(details, policy, handler.unary_stream, None), *coders)
        limit = (policy.deadline_ms if policy else 0) or _UNARY_MS
        return grpc.unary_unary_rpc_method_handler(self._wrap(details, policy, handler.unary_unary, limit / 1000), *coders)

    def _wrap(
        self,
        details: grpc.HandlerCallDetails,
        policy: policy_pb2.MethodPolicy | None,
        behaviour: _Behaviour,
        limit: float | None,
    ) -> _Behaviour:
        method, metadata = details.method, tuple(details.invocation_metadata or ())

        async def guarded(request: object, context: grpc.aio.ServicerContext) -> object:
            begin = time.monotonic()
            code = 'CANCELLED'
            try:
                try:
                    self._admit(policy, [value for key, value in metadata if key == 'authorization'])
                    with telemetry.call_span(method, {key: value for key, value in metadata if isinstance(value, str)}):
                        async with asyncio.timeout(limit):
                            answer = await behaviour(request, context)
                    code = 'OK'
                    return answer
                except RpcError as fault:
                    error = fault
                except TimeoutError:
                    error = RpcError('DEADLINE', 'the call took longer than it may')
                except Exception as fault:
                    error = unexpected(method, fault)
                code = error.code.name
                await abort(context, error)
            finally:
                metrics.rpcs.labels(method, code).observe(time.monotonic() - begin)

        return guarded

    def _admit(self, policy: policy_pb2.MethodPolicy | None, headers: list[str | bytes]) -> None:
        if len(headers) > 1:
            raise RpcError('TOKEN_INVALID', 'the call brings more than one authorization header')
        scheme, _, token = str(headers[0]).partition(' ') if headers else ('', '', '')
        service = self._verifier.service(token.strip() if scheme.lower() == 'bearer' else None)
        if policy is None or service not in policy.services:
            accepted = ', '.join(policy.services) if policy else ''
            raise RpcError('SERVICE_NOT_ACCEPTED', f'the method does not accept calls of {service}', metadata={'accepted': accepted})
