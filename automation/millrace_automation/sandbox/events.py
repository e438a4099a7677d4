"""What a run tells: the events of a process, and how the packets that may hold them are read.

A script owns its end of the channel. Whatever comes out of it is taken for hostile: too long, malformed, out of order, not UTF-8.
"""

import json
import math
from dataclasses import dataclass
from typing import Literal

from .inside.artifacts import NUMBER
from .inside.channel import ARTIFACT, ARTIFACT_DATA, FIRST, HEAD, LOG, MORE, PARSED, PART_BYTES, PROGRESS, RAISED, RETURNED, USAGE, USED

PACKET_BYTES = HEAD.size + PART_BYTES
OUTPUT_BYTES = 1 << 20
_MOST_BYTES = {PARSED: 1, USED: USAGE.size, LOG: 1 << 20, PROGRESS: PART_BYTES, RETURNED: OUTPUT_BYTES, RAISED: 1 << 19} | {
    ARTIFACT: PART_BYTES,
    ARTIFACT_DATA: PART_BYTES,
}


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes as they were read from a standard stream: not lines, not always whole characters."""

    stream: Literal['stdout', 'stderr']
    data: bytes
    time: float
    """When they were read, in seconds since 1970, as in all events."""


@dataclass(frozen=True, slots=True)
class Log:
    """An entry of `logging` or `millrace.log`. The text may have several lines."""

    level: str
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the script says it is, from 0 to 1."""

    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class ArtifactOpened:
    """It begins to send a file, and sends no more of one that it has not finished. The number is its own."""

    number: int
    name: str
    content_type: str
    retention_days: int


@dataclass(frozen=True, slots=True)
class ArtifactData:
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ArtifactClosed:
    number: int
    is_whole: bool
    """Else it was given up."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The verdict of a script that ended well. At most 1 MiB of JSON; `null` for a plain script."""

    output_json: str


@dataclass(frozen=True, slots=True)
class Raised:
    """The verdict of a script that did not. `type` is the exception's class or InputInvalid, OutputInvalid, OutputTooLarge, ExitCode."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Used:
    """What a process that is not kept says it used, right before its verdict. It may say anything."""

    cpu_seconds: float
    peak_memory_kib: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Everything that came before the verdict was told. The process is still there."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The first word of a process that may be kept, before any code of the script runs. Without a `main` function it is not."""

    has_main: bool


@dataclass(frozen=True, slots=True)
class Exited:
    """The last event: nothing of the run is left, but its process where that is kept. Either `code` or `signal` is set."""

    code: int | None
    signal: int | None
    cpu_seconds: float
    peak_memory_kib: int
    oom: bool
    """It was killed because it needed more memory than its limit."""
    time: float


OfArtifact = ArtifactOpened | ArtifactData | ArtifactClosed
Told = Log | Progress | OfArtifact | Returned | Raised | Parsed | Used
Event = Output | Told | Settled | Exited


class Decoder:
    """Puts the packets of a channel together. Holds at most the length of one message of each kind."""

    def __init__(self) -> None:
        self._parts: dict[bytes, bytearray] = {}

    def feed(self, packet: bytes, now: float) -> tuple[int, int, Told] | None:
        """A whole message, behind how many bytes of standard output and error it was sent; None for anything else."""
        if len(packet) < HEAD.size:
            return None
        kind, flags, output, error = HEAD.unpack_from(packet)
        if kind not in _MOST_BYTES:
            return None
        body = bytearray() if flags & FIRST else self._parts.pop(kind, bytearray())
        body += packet[HEAD.size :]
        if len(body) > _MOST_BYTES[kind]:
            if kind != RETURNED:
                return None
            return output, error, Raised('OutputTooLarge', f'The output has more than {OUTPUT_BYTES} bytes of JSON.', '')
        if flags & MORE:
            self._parts[kind] = body
            return None
        message = _read(kind, bytes(body), now)
        return message and (output, error, message)


def _read(kind: bytes, body: bytes, now: float) -> Told | None:
    if kind == ARTIFACT_DATA:
        return ArtifactData(*NUMBER.unpack_from(body), body[NUMBER.size :]) if len(body) >= NUMBER.size else None
    if kind == PARSED:
        return Parsed(body == b'1')
    if kind == USED:
        return _usage(body)
    if kind == LOG:
        level, _, text = body.partition(b'\0')
        return Log(level.decode(errors='replace')[:32], text.decode(errors='replace'), now)
    try:
        value = _decode(body.decode())
    except (ValueError, RecursionError):
        return Raised('OutputInvalid', 'The output is not JSON.', '') if kind == RETURNED else None
    if kind == RETURNED:
        return Returned(body.decode())
    match value:
        case [int() | float() as fraction, str(message)] if kind == PROGRESS and math.isfinite(fraction):
            return Progress(min(max(float(fraction), 0.0), 1.0), _clean(message)[:500])
        case [int(number), 'open', str(name), str(content_type), int(days)] if kind == ARTIFACT:
            return ArtifactOpened(number, _clean(name)[:1000], _clean(content_type)[:1000], min(max(days, -1), 100_000))
        case [int(number), ('finish' | 'give up') as how] if kind == ARTIFACT:
            return ArtifactClosed(number, how == 'finish')
        case {'type': str(name), 'message': str(message), 'traceback': str(traceback)} if kind == RAISED:
            return Raised(_clean(name)[:200], _clean(message)[:8_000], _clean(traceback)[:32_000])
    return None


def _usage(body: bytes) -> Used | None:
    if len(body) != USAGE.size:
        return None
    seconds, peak = USAGE.unpack(body)
    return Used(seconds, peak) if math.isfinite(seconds) and seconds >= 0 else None


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is no JSON')


_decode = json.JSONDecoder(parse_constant=_refuse).decode  # made once: json.loads makes one for each call


def _clean(text: str) -> str:
    """JSON can write lone surrogates; UTF-8 cannot."""
    return text.encode(errors='replace').decode()
