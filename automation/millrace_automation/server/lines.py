"""From the bytes that a script writes to the lines of its log. Nothing here waits or reads a clock.

Reading the pieces of one stream one after the other, each followed by a newline unless it is partial, gives what a terminal would
have been sent. A carriage return replaces what its line had so far: what was not delivered yet is forgotten, and a piece that goes on
with a line of which a part was delivered begins with the carriage return.
"""

import codecs
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

PIECE_BYTES = 16 * 1024
LOG_BYTES = 10 * 1024 * 1024
_PARTS = re.compile(rb'[^\r\n]+|\r|\n')
_MOST = 2**31 - 1

STDOUT, STDERR, LOG, SYSTEM = 1, 2, 3, 4


class Splitter:
    """Cuts one stream into pieces: UTF-8 text without its line end, and whether its line goes on in the next piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._text = bytearray()  # of the present line, not delivered yet
        self._returned = False  # a carriage return came last
        self._continues = False  # a part of the present line was delivered

    @property
    def is_unfinished(self) -> bool:
        """Whether text waits for the end of its line."""
        return bool(self._text)

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        for match in _PARTS.finditer(self._decode(data)):
            part = match.group()
            if part == b'\n':
                yield self._end()
            elif part == b'\r':
                self._returned = True
            else:
                yield from self._append(part)

    def flush(self) -> Iterator[tuple[bytes, bool]]:
        """Delivers what waits, although its line is not finished."""
        if self._text:
            yield self._part(len(self._text))

    def close(self) -> Iterator[tuple[bytes, bool]]:
        """Nothing follows: ends a line that has no end."""
        if rest := self._decoder.decode(b'', final=True):
            yield from self._append(rest.encode())
        if self._text or self._continues:
            yield self._end()

    def _decode(self, data: bytes) -> bytes:
        if data.isascii() and not self._decoder.getstate()[0]:
            return data
        return self._decoder.decode(data).encode()

    def _append(self, part: bytes) -> Iterator[tuple[bytes, bool]]:
        if self._returned:
            self._returned = False
            self._text[:] = b'\r' if self._continues else b''
        self._text += part
        while len(self._text) > PIECE_BYTES:
            cut = PIECE_BYTES
            while self._text[cut] & 0xC0 == 0x80:  # not inside a character
                cut -= 1
            yield self._part(cut)

    def _part(self, length: int) -> tuple[bytes, bool]:
        text = bytes(self._text[:length])
        del self._text[:length]
        self._continues = True
        return text, True

    def _end(self) -> tuple[bytes, bool]:
        text = bytes(self._text)
        self._text.clear()
        self._returned = self._continues = False
        return text, False


def pieces(text: str) -> Iterator[tuple[bytes, bool]]:
    """The pieces of a whole text, such as one message of `logging`, which may hold several lines."""
    splitter = Splitter()
    yield from splitter.feed((well_formed(text) or '\n').encode())
    yield from splitter.close()


def well_formed(text: str) -> str:
    """Lone surrogates, which JSON can bring in and UTF-8 cannot carry, become U+FFFD."""
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


@dataclass(frozen=True, slots=True)
class Entry:
    """A line as it is delivered."""

    seq: int
    stream: int
    level: str
    text: bytes
    partial: bool


@dataclass(slots=True)
class Log:
    """Numbers the lines of one job, keeps their hash and stops at the limit."""

    limit: int = LOG_BYTES
    count: int = 0
    kept_bytes: int = 0
    dropped_bytes: int = 0
    _hash: 'hashlib._Hash' = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def end_within(self, more: int) -> None:
        """Keeps at most that many bytes more."""
        self.limit = min(self.limit, self.kept_bytes + more)

    def add(self, stream: int, level: str, text: bytes, partial: bool) -> Entry | None:
        """The entry to deliver, or None when the log is full. The first line that no longer fits is replaced by a mark."""
        size = len(text) + (not partial)
        if self.dropped_bytes or self.kept_bytes + size > self.limit:
            is_first = not self.dropped_bytes
            self.dropped_bytes = min(self.dropped_bytes + size, _MOST)
            if not is_first:
                return None
            stream, level, partial = SYSTEM, '', False
            text = b'The log was cut here: more was printed than is kept.'
            size = len(text) + 1
        self._hash.update(text if partial else text + b'\n')
        self.kept_bytes += size
        self.count += 1
        return Entry(self.count - 1, stream, level, text, partial)
