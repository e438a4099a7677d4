"""`millrace.artifact`: sends a file piece by piece, and waits until it is kept.

On the channel, to the supervisor: control messages (JSON: the upload's number, `open`, `finish` or `give up`, and of `open` name, content
type and days) and data (the number, then bytes). From it, once for an upload and at any time: a JSON object with the number and either
`artifact` or `reason` and `message`. The supervisor reads no faster than it can pass on, so a script that is too fast waits in its write.
"""

import json
import os
import struct
import threading
from collections.abc import Iterator
from typing import Any

from .channel import PART_BYTES, Channel

NUMBER = struct.Struct('<I')
_PIECE_BYTES = PART_BYTES - NUMBER.size
_BYTES = (bytes, bytearray, memoryview)


class ArtifactError(Exception):
    """The artifact was not kept. `reason` is a word to branch on, such as `ARTIFACT_TOO_LARGE`."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class Artifacts:
    def __init__(self, channel: Channel):
        self._channel = channel
        self._lock = threading.Lock()
        self._number = 0

    def keep(self, name: object, content: object, content_type: object, retention_days: object) -> dict[str, Any]:
        if not self._channel.is_own:
            raise RuntimeError('only the process that the script was started in can keep artifacts')
        if content is None:  # the name is a path
            content, name = name, os.path.basename(os.fspath(name))
        opening = [str(name), str(content_type or ''), int(retention_days or 0)]
        pieces = _pieces(content)
        with self._lock:
            self._number += 1
            return self._send(self._number, opening, pieces)

    def _send(self, number: int, opening: list[Any], pieces: Iterator[bytes]) -> dict[str, Any]:
        self._channel.artifact(json.dumps([number, 'open', *opening]).encode())
        is_whole = False
        try:
            for piece in pieces:
                self._channel.artifact_data(NUMBER.pack(number) + piece)
                self._hear(number, wait=False)  # what was refused already is not worth sending
            self._channel.artifact(json.dumps([number, 'finish']).encode())
            kept = self._hear(number, wait=True)
            is_whole = True
        finally:
            if not is_whole:
                self._channel.artifact(json.dumps([number, 'give up']).encode())
        return kept

    def _hear(self, number: int, wait: bool) -> dict[str, Any] | None:
        while (packet := self._channel.hear(wait)) is not None:
            if not packet:
                raise ArtifactError('UNAVAILABLE', 'nobody is there to keep the artifact')
            answer = json.loads(packet)
            if answer['number'] != number:
                continue  # of one that was given up
            if 'artifact' in answer:
                return answer['artifact']
            raise ArtifactError(answer['reason'], answer['message'])
        return None


def _pieces(content: object) -> Iterator[bytes]:
    """What is wrong with the content is said before anything is sent."""
    if isinstance(content, str | os.PathLike):
        return _of_file(open(content, 'rb', buffering=0))
    if isinstance(content, _BYTES):
        return _cut(content)
    if callable(getattr(content, 'read', None)):
        return _of_reader(content)
    try:
        return _of_parts(iter(content))
    except TypeError:
        raise TypeError(f'an artifact is made of a path, bytes, a file or an iterable of bytes, not of {type(content).__name__}') from None


def _cut(data: object) -> Iterator[bytes]:
    view = memoryview(data).cast('B')
    for start in range(0, len(view), _PIECE_BYTES):
        yield bytes(view[start : start + _PIECE_BYTES])


def _of_file(file: Any) -> Iterator[bytes]:
    with file:
        yield from _of_reader(file)


def _of_reader(file: Any) -> Iterator[bytes]:
    while part := file.read(_PIECE_BYTES):
        yield from _cut(_bytes(part))


def _of_parts(parts: Iterator[object]) -> Iterator[bytes]:
    for part in parts:
        yield from _cut(_bytes(part))


def _bytes(part: object) -> object:
    if isinstance(part, str):
        return part.encode()
    if not isinstance(part, _BYTES):
        raise TypeError(f'an artifact is made of bytes, not of {type(part).__name__}')
    return part
