"""Hides the values of secrets in what a script tells: as they are, and in the forms in which they appear by themselves.

The script's own side hides them before it cuts a text to its length; the server's side decides. Neither stops a script that wants to tell
a secret: it can write it backwards.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

MARK = '***'
_MARK = MARK.encode()
_LEAST = 8  # bytes of a form: shorter ones would hide what is no secret
_TAIL = 6  # bytes of a secret that was cut off by the end of its stream


class Masker:
    """For the secrets of one run."""

    def __init__(self, values: Iterable[str]):
        forms = {form for value in values for form in _forms(value)}
        self._forms = sorted((form for form in forms if len(form) >= _LEAST), key=len)

    def bytes(self, data: bytes) -> bytes:
        return _covered(data, self.spans(data))

    def text(self, text: str) -> str:
        data = text.encode(errors='surrogatepass')
        spans = self.spans(data)
        return _covered(data, spans).decode(errors='surrogatepass') if spans else text

    def json(self, text: str) -> str:
        """JSON stays JSON: what holds a secret becomes a string."""
        if not self.spans(text.encode(errors='surrogatepass')):
            return text
        try:
            return json.dumps(self._value(json.loads(text)), ensure_ascii=False, separators=(',', ':'))
        except (ValueError, RecursionError):
            return self.text(text)

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case list():
                return [self._value(part) for part in value]
            case dict():
                return {self.text(key): self._value(part) for key, part in value.items()}
            case bool() | None:
                return value
        return MARK if self.spans(json.dumps(value).encode()) else value

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets stand: in order, and apart from each other."""
        return _joined((start, start + len(form)) for form in self._forms for start in _places(data, form))

    def unfinished(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a secret."""
        longest = 0
        for form in self._forms:
            start = data.find(form[:1], max(0, len(data) - len(form) + 1))
            while 0 <= start < len(data) - longest:
                if form.startswith(data[start:]):
                    longest = len(data) - start
                    break
                start = data.find(form[:1], start + 1)
        return longest


class Stream:
    """Hides secrets in what comes piece by piece. Holds back only what may be the beginning of one."""

    def __init__(self, masker: Masker):
        self._masker = masker
        self._held = b''
        self._hidden = 0
        """How much of what is held belongs to a secret for which the mark was told."""

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        return self._tell(data, self._masker.spans(data), len(data) - self._masker.unfinished(data))

    def close(self) -> bytes:
        """The rest: nothing follows it."""
        data = self._held
        return self._tell(data, [(0, len(data))] if len(data) >= _TAIL else [], len(data))

    def _tell(self, data: bytes, spans: list[tuple[int, int]], cut: int) -> bytes:
        told, position = [], 0
        for start, end in _joined([(0, self._hidden), *spans] if self._hidden else spans):
            if start >= cut:
                break
            told.append(data[position:start])
            if start or not self._hidden:
                told.append(_MARK)
            position = end
        self._held, self._hidden = data[cut:], max(0, position - cut)
        return b''.join([*told, data[position:cut]])


def _covered(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    parts, position = [], 0
    for start, end in spans:
        parts += [data[position:start], _MARK]
        position = end
    return b''.join([*parts, data[position:]])


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, and apart from each other."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _places(data: bytes, form: bytes) -> Iterator[int]:
    start = data.find(form)
    while start >= 0:
        yield start
        start = data.find(form, start + 1)


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode(errors='surrogatepass')
    stripped = value.strip()
    for text in {value, stripped, *(line.strip() for line in value.splitlines())}:
        for write in _WRITERS:
            yield write(text).encode(errors='surrogatepass')
    for part in {raw, stripped.encode(errors='surrogatepass')}:
        yield part.hex().encode()
        yield part.hex().upper().encode()
        for form in _base64(part):
            yield form
            yield form.translate(_URL_SAFE)


def _base64(raw: bytes) -> Iterator[bytes]:
    """Alone, in lines, and within a longer text: what depends on its neighbours is left out."""
    yield base64.b64encode(raw)
    yield base64.b64encode(raw).rstrip(b'=')
    yield from base64.encodebytes(raw).splitlines()
    for before, dependent in ((0, 0), (1, 2), (2, 3)):
        text = base64.b64encode(bytes(before) + raw).rstrip(b'=')
        yield text[dependent:-1] if (before + len(raw)) % 3 else text[dependent:]


def _lower(text: str) -> str:
    return re.sub('%[0-9A-F]{2}', lambda code: code.group().lower(), text)


_URL_SAFE = bytes.maketrans(b'+/', b'-_')
_WRITERS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: repr(text.encode(errors='surrogatepass'))[2:-1],
    html.escape,
    lambda text: html.escape(text, quote=False),
    lambda text: quote(text, safe='', errors='replace'),
    lambda text: quote(text, errors='replace'),
    lambda text: quote_plus(text, errors='replace'),
    lambda text: _lower(quote(text, safe='', errors='replace')),
    lambda text: _lower(quote(text, errors='replace')),
    lambda text: _lower(quote_plus(text, errors='replace')),
)
