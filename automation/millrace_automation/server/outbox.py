"""What one job has to tell its dispatcher, kept until it is confirmed.

Lines wait, fly (sent on the present stream, not confirmed) and are forgotten when confirmed. They are kept as the bytes of an
OutputItem's field, so that a frame of thousands of them is put together by joining bytes.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp
from millrace.runner.v1 import job_pb2, session_pb2

from .lines import Entry

KEPT_BYTES = 1024 * 1024
FLYING_BYTES = 256 * 1024
_LINE_OVERHEAD = 48  # what a line costs in memory beside its bytes
_LINES_TAG = bytes([session_pb2.OutputItem.LINES_FIELD_NUMBER << 3 | 2])


class Outbox:
    def __init__(self, execution_id: str, claim_id: bytes, changed: Callable[['Outbox'], None]):
        self.execution_id = execution_id
        self.claim_id = claim_id
        self.confirmed_lines = 0
        self.kept_bytes = 0
        self.result: job_pb2.Result | None = None
        self._changed = changed
        self._waiting: deque[bytes] = deque()
        self._flying: deque[bytes] = deque()
        self._flying_bytes = 0
        self._started: job_pb2.Started | None = None
        self._is_started_sent = self._is_result_sent = self._is_start_due = False
        self._is_start_known = True
        self._progress: job_pb2.ProgressReport | None = None
        self._is_progress_sent = True
        self._is_bounded = True
        self._is_closed = False
        self._room = asyncio.Event()
        self._room.set()

    # what the job says

    def start(self, started: job_pb2.Started, is_due: bool = True, is_known: bool = True) -> None:
        """One that is not due goes with whatever comes next, and shares its commit. Until all of it is known, nothing goes but the end."""
        self._started = started
        self._is_start_due = is_due
        self._is_start_known = is_known
        self._changed(self)

    def know_start(self) -> None:
        self._is_start_known = True
        if self.has_news:
            self._changed(self)

    def tell_start(self) -> None:
        self._is_start_due = True
        if self.has_news:
            self._changed(self)

    def add(self, entry: Entry, time: Timestamp) -> None:
        if self._is_closed:
            return
        line = job_pb2.Line(
            seq=entry.seq, time=time, stream=entry.stream, level=entry.level, text=entry.text.decode(), partial=entry.partial
        ).SerializeToString()
        framed = _LINES_TAG + _varint(len(line)) + line
        self._waiting.append(framed)
        self.kept_bytes += len(framed) + _LINE_OVERHEAD
        if self.kept_bytes >= KEPT_BYTES and self._is_bounded:
            self._room.clear()
        self._changed(self)

    def progress(self, report: job_pb2.ProgressReport) -> None:
        self._progress = report
        self._is_progress_sent = False
        self._changed(self)

    def end(self, result: job_pb2.Result) -> None:
        self.result = result
        self._is_start_known = True
        self.kept_bytes += result.ByteSize()
        self._changed(self)

    @property
    def is_full(self) -> bool:
        return not self._room.is_set()

    async def room(self) -> None:
        """Returns when less than the limit is kept, which may take until a dispatcher confirms."""
        await self._room.wait()

    def unbound(self) -> None:
        """The process is gone: take what its pipes still hold, which is bounded by itself."""
        self._is_bounded = False
        self._room.set()

    def close(self) -> None:
        """Nobody wants to know any longer: forgets everything, and whatever follows."""
        self._is_closed = True
        self._waiting.clear()
        self._flying.clear()
        self.kept_bytes = self._flying_bytes = 0
        self.unbound()

    # what the dispatcher gets

    @property
    def has_news(self) -> bool:
        """Whether `take` would give something."""
        return (self._is_start_known and not self._is_closed) and (
            (self._started is not None and not self._is_started_sent and self._is_start_due)
            or (bool(self._waiting) and self._flying_bytes < FLYING_BYTES)
            or not self._is_progress_sent
            or (self.result is not None and not self._is_result_sent and not self._waiting)
        )

    def take(self, room: int) -> tuple[session_pb2.OutputItem, int]:
        """What is new, in order, up to about `room` bytes (the result may be larger: it is one thing), and its size."""
        lines: list[bytes] = []
        size = 0
        while self._waiting and size < room and self._flying_bytes < FLYING_BYTES:
            framed = self._waiting.popleft()
            self._flying.append(framed)
            self._flying_bytes += len(framed)
            size += len(framed)
            lines.append(framed)
        item = session_pb2.OutputItem()
        item.ParseFromString(b''.join(lines))
        item.execution_id, item.claim_id = self.execution_id, self.claim_id
        if self._started is not None and not self._is_started_sent:
            item.started.CopyFrom(self._started)
            self._is_started_sent = True
        if self._progress is not None and not self._is_progress_sent:
            item.progress.CopyFrom(self._progress)
            self._is_progress_sent = True
        is_last = self.result is not None and not self._is_result_sent and not self._waiting
        if is_last and (not lines or size + self.result.ByteSize() <= room):
            item.result.CopyFrom(self.result)
            self._is_result_sent = True
            size += self.result.ByteSize()
        return item, size

    def confirm(self, lines: int, started: bool = False) -> None:
        """Forgets what is durable. A new owner may confirm what its predecessor wrote before it was sent again here."""
        while self.confirmed_lines < lines and (self._flying or self._waiting):
            framed = (self._flying or self._waiting).popleft()
            if self._flying_bytes:
                self._flying_bytes -= len(framed)
            self.kept_bytes -= len(framed) + _LINE_OVERHEAD
            self.confirmed_lines += 1
        if started:
            self._is_started_sent, self._started = True, None
        if self.kept_bytes < KEPT_BYTES:
            self._room.set()
        if self.has_news:
            self._changed(self)

    def rewind(self) -> None:
        """A new stream: everything that is not confirmed is new again."""
        self._waiting.extendleft(reversed(self._flying))
        self._flying.clear()
        self._flying_bytes = 0
        self._is_started_sent = self._is_result_sent = False
        self._is_progress_sent = self._progress is None


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
