"""Errors as callers see them: a gRPC code, and google.rpc.Status details that name the reason."""

import secrets

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from millrace.options.v1 import error_reason_pb2

from . import log
from .checks import Fault

DOMAIN = 'runner.millrace'
OVERLOADED, UNAVAILABLE = 'OVERLOADED', 'DEPENDENCY_UNAVAILABLE'
_REASONS = frozenset(error_reason_pb2.ErrorReason.keys())
_CODES = {
    'FIELD_INVALID': grpc.StatusCode.INVALID_ARGUMENT,
    'TOKEN_MISSING': grpc.StatusCode.UNAUTHENTICATED,
    'TOKEN_INVALID': grpc.StatusCode.UNAUTHENTICATED,
    'SERVICE_NOT_ACCEPTED': grpc.StatusCode.PERMISSION_DENIED,
    'RESOURCE_NOT_FOUND': grpc.StatusCode.NOT_FOUND,
    'OVERLOADED': grpc.StatusCode.RESOURCE_EXHAUSTED,
    'DEPENDENCY_UNAVAILABLE': grpc.StatusCode.UNAVAILABLE,
    'CONFLICT': grpc.StatusCode.ABORTED,
    'UNEXPECTED': grpc.StatusCode.INTERNAL,
    # said by the code alone
    'DEADLINE': grpc.StatusCode.DEADLINE_EXCEEDED,
    'NOT_OPENED': grpc.StatusCode.FAILED_PRECONDITION,
}


class RpcError(Exception):
    """Ends a call with a code and details."""

    def __init__(
        self,
        reason: str,
        message: str,
        faults: list[Fault] | None = None,
        retry_seconds: float | None = None,
        metadata: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.reason = reason
        self.code = _CODES[reason]
        self._faults = faults or []
        self._retry_seconds = retry_seconds
        self._metadata = metadata or {}

    def status(self) -> status_pb2.Status:
        details = []
        if self.reason in _REASONS:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self._metadata))
        if self._faults:
            violations = [error_details_pb2.BadRequest.FieldViolation(field=field, description=what) for field, what in self._faults]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        if self._retry_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(self._retry_seconds * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=str(self))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status


def invalid(faults: list[Fault]) -> RpcError:
    return RpcError('FIELD_INVALID', '; '.join(f'{field} {what}' for field, what in faults), faults)


def not_found(what: str, id: str) -> RpcError:
    return RpcError('RESOURCE_NOT_FOUND', f'there is no {what} {id} here', metadata={'id': id})


def unexpected(method: str, fault: BaseException) -> RpcError:
    """A fault of the server: its text goes to the log only."""
    trace = secrets.token_hex(8)
    log.error('a call failed', fault, method=method, trace=trace)
    return RpcError('UNEXPECTED', 'the server failed', metadata={'trace': trace})


async def abort(context: grpc.aio.ServicerContext, error: RpcError) -> None:
    trailers = (('grpc-status-details-bin', error.status().SerializeToString()),)
    await context.abort(error.code, str(error), trailers)
