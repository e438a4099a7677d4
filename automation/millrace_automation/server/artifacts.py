"""Files on their way from a script to the executions area. None is held here as a whole: a script waits while more than WINDOW_BYTES are not
confirmed.

  sending -> (the connection broke) waiting -> sending again, from where the other side says -> kept
         `-> refused: the script is told at once, and what it still sends is thrown away
"""

import asyncio
import contextlib
import hashlib
import json
import mimetypes
import random
import time
from collections import deque
from collections.abc import Callable

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from millrace.executions.v1 import artifact_intake_service_pb2 as pb
from millrace.executions.v1 import artifact_intake_service_pb2_grpc as pb_grpc
from millrace.executions.v1 import artifact_pb2

from millrace_automation.sandbox import ArtifactClosed, ArtifactData, ArtifactOpened

from . import ids, lines, log
from .auth import Signer

WINDOW_BYTES = 1024 * 1024
PATIENCE_SECONDS = 60.0  # for a connection, from the last time that anything was confirmed
_PAUSE_SECONDS = (0.1, 2.0)
_UNKNOWN_TYPE = 'application/octet-stream'
_AGAIN = ('', 'DEPENDENCY_UNAVAILABLE', 'UNEXPECTED', 'OVERLOADED', 'REVOCATION_UNKNOWN')  # what may be otherwise the next time
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNIMPLEMENTED,  # a process that starts listens before it serves
)
_OPTIONS = [('grpc.keepalive_time_ms', 10_000), ('grpc.keepalive_timeout_ms', 5_000), ('grpc.max_reconnect_backoff_ms', 1_000)]

Deliver = Callable[[int, str, bytes, bool, Timestamp], None]
"""Writes a line to the log of the job: stream, level, text, whether it is partial, time."""


class Refusal(Exception):
    """The artifact is not kept, whatever is tried."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class Store:
    """The executions area. Nothing is dialled before the first artifact."""

    def __init__(self, url: str, signer: Signer):
        self._url = url
        self._signer = signer
        self._channel: grpc.aio.Channel | None = None

    def call(self) -> grpc.aio.StreamStreamCall:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._url, options=_OPTIONS)
        stub = pb_grpc.ArtifactIntakeServiceStub(self._channel)
        return stub.StoreArtifact(metadata=(('authorization', f'Bearer {self._signer.token("executions")}'),))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


class Uploads:
    """Those of one job, one at a time."""

    def __init__(self, store: Store | None, execution_id: str, claim_id: bytes):
        self._store = store if execution_id else None
        self._execution_id = execution_id
        self._claim_id = claim_id
        self._present: _Upload | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._answer: Callable[[bytes], None] = lambda packet: None
        self._deliver: Deliver | None = None

    def begin(self, answer: Callable[[bytes], None], deliver: Deliver) -> None:
        """The script runs. `answer` reaches it."""
        self._answer, self._deliver = answer, deliver

    @property
    def is_full(self) -> bool:
        return self._present is not None and not self._present.room.is_set()

    async def take(self, event: object) -> None:
        """What the script told, whatever it is about. Returns when more may come."""
        present = self._present
        match event:
            case ArtifactOpened():
                self._give_up()
                self._open(event)
            case ArtifactData() if present and event.number == present.number:
                present.add(event.data)
                await present.room.wait()
            case ArtifactClosed() if present and event.number == present.number:
                present.close(event.is_whole)

    def close(self) -> None:
        """The job has ended, or is to end: nothing more is told, and what is not whole is given up."""
        self._answer, self._deliver = lambda packet: None, None
        self._give_up()

    def _give_up(self) -> None:
        if self._present:
            self._present.close(is_whole=False)
            self._present = None

    def _open(self, event: ArtifactOpened) -> None:
        opening = pb.StoreArtifactRequest.Open(
            execution_id=self._execution_id,
            claim_id=self._claim_id,
            artifact_id=ids.new_id('art'),
            name=lines.well_formed(event.name),
            content_type=lines.well_formed(event.content_type) or mimetypes.guess_type(event.name)[0] or _UNKNOWN_TYPE,
            retention_days=event.retention_days,
        )
        self._present = _Upload(event.number, opening)
        task = asyncio.create_task(self._run(self._present))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, upload: '_Upload') -> None:
        told: dict[str, object] = {'number': upload.number}
        try:
            if self._store is None:
                raise Refusal('NOT_KEPT', 'only executions keep artifacts, and this run is none')
            kept = await upload.run(self._store)
            described = {name: getattr(kept, name) for name in ('id', 'name', 'sha256', 'content_type')}
            told['artifact'] = {**described, 'size': kept.size_bytes}
            if self._deliver:
                self._note(kept)
        except Refusal as refusal:
            told |= {'reason': refusal.reason, 'message': str(refusal)[:2000]}
        except Exception as fault:
            log.error('an artifact could not be sent', fault, execution=self._execution_id)
            told |= {'reason': 'UNEXPECTED', 'message': 'the server failed'}
        finally:
            upload.over()
        if upload is self._present:
            self._present = None
            self._answer(json.dumps(told).encode())

    def _note(self, kept: artifact_pb2.Artifact) -> None:
        text = f'artifact {kept.name}: {kept.size_bytes} bytes, {kept.content_type}, {kept.id}'
        now = Timestamp()
        now.GetCurrentTime()
        self._deliver(lines.SYSTEM, 'INFO', text.encode(), False, now)


class _Upload:
    def __init__(self, number: int, opening: pb.StoreArtifactRequest.Open):
        self.number = number
        self.room = asyncio.Event()
        self.room.set()
        self._opening = opening
        self._pieces: deque[bytes] = deque()  # that are not confirmed
        self._first = self._end = 0  # positions in the file, of the first of them and behind the last
        self._hash = hashlib.sha256()
        self._news = asyncio.Event()
        self._is_whole: bool | None = None
        self._is_over = False

    # what the script sends

    def add(self, data: bytes) -> None:
        if self._is_over or self._is_whole is not None or not data:
            return
        self._pieces.append(data)
        self._end += len(data)
        self._hash.update(data)
        if self._end - self._first >= WINDOW_BYTES:
            self.room.clear()
        self._news.set()

    def close(self, is_whole: bool) -> None:
        if self._is_whole is None or not is_whole:
            self._is_whole = is_whole
        self._news.set()
        if not is_whole:
            self.room.set()

    def over(self) -> None:
        self._is_over = True
        self._pieces.clear()
        self.room.set()

    # where it goes

    async def run(self, store: Store) -> artifact_pb2.Artifact:
        failing_since: float | None = None
        while True:
            confirmed = self._first
            call = store.call()
            try:
                return await self._exchange(call)
            except grpc.aio.AioRpcError as fault:
                refusal = _refusal(fault)
                if self._first > confirmed:
                    failing_since = None
                failing_since = failing_since or time.monotonic()
                if refusal.reason not in _AGAIN or fault.code() not in _PASSING:
                    raise refusal from fault
                if self._is_whole is False or time.monotonic() > failing_since + PATIENCE_SECONDS:
                    raise Refusal('UNAVAILABLE', f'nothing keeps the artifact: {refusal}') from fault
                log.warn('an artifact is sent again from where it was', execution=self._opening.execution_id, why=str(refusal))
            finally:
                call.cancel()
            least, most = _PAUSE_SECONDS
            await asyncio.sleep(random.uniform(least, min(most, least + time.monotonic() - failing_since)))

    async def _exchange(self, call: grpc.aio.StreamStreamCall) -> artifact_pb2.Artifact:
        with contextlib.suppress(asyncio.InvalidStateError):  # it has ended: the answer says why
            await call.write(pb.StoreArtifactRequest(open=self._opening))
        first = await _read(call)
        if first.HasField('stored'):
            return first.stored
        if not self._first <= first.staged_bytes <= self._end:
            raise Refusal('UPLOAD_LOST', 'what was sent of the artifact is not there any more')
        self._confirm(first.staged_bytes)
        sending = asyncio.create_task(self._send(call, first.staged_bytes))
        try:
            while True:
                answer = await _read(call)
                if answer.HasField('stored'):
                    return answer.stored
                self._confirm(answer.staged_bytes)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)  # the answers say why it failed

    async def _send(self, call: grpc.aio.StreamStreamCall, position: int) -> None:
        while self._is_whole is not False:
            if piece := self._from(position):
                await call.write(pb.StoreArtifactRequest(data=piece))
                position += len(piece)
            elif self._is_whole:
                finish = pb.StoreArtifactRequest.Finish(size_bytes=self._end, sha256=self._hash.digest())
                await call.write(pb.StoreArtifactRequest(finish=finish))
                break
            else:
                self._news.clear()
                await self._news.wait()
        else:
            await call.write(pb.StoreArtifactRequest(give_up=pb.StoreArtifactRequest.GiveUp()))
        await call.done_writing()

    def _from(self, position: int) -> bytes:
        """What is next there, up to the end of a piece."""
        at = self._first
        for piece in self._pieces:
            if position < at + len(piece):
                return piece[position - at :]
            at += len(piece)
        return b''

    def _confirm(self, staged: int) -> None:
        while self._pieces and self._first + len(self._pieces[0]) <= staged:
            self._first += len(self._pieces.popleft())
        if self._end - self._first < WINDOW_BYTES:
            self.room.set()


async def _read(call: grpc.aio.StreamStreamCall) -> pb.StoreArtifactResponse:
    answer = await call.read()
    if answer is grpc.aio.EOF:
        raise Refusal('GIVEN_UP', 'the artifact was given up')
    return answer


def _refusal(fault: grpc.aio.AioRpcError) -> Refusal:
    """The reason as the contract says it; empty where the other side did not come to say one."""
    for key, value in fault.trailing_metadata() or ():
        if key == 'grpc-status-details-bin':
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return Refusal(info.reason, fault.details() or info.reason)
    return Refusal('', f'{fault.code().name}: {fault.details()}')
