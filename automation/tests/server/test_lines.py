"""From bytes to lines: what a reader gets does not depend on how the bytes came."""

import codecs
import hashlib
import random

import pytest

from millrace_automation.server import lines
from millrace_automation.server.lines import PIECE_BYTES, Log, Splitter, pieces


def split(*chunks: bytes) -> list[tuple[str, bool]]:
    splitter = Splitter()
    found = [piece for chunk in chunks for piece in splitter.feed(chunk)]
    return [(text.decode(), partial) for text, partial in (*found, *splitter.close())]


@pytest.mark.parametrize(
    ('data', 'expected'),
    [
        (b'', []),
        (b'a\nb\n', [('a', False), ('b', False)]),
        (b'a\n\nb', [('a', False), ('', False), ('b', False)]),
        (b'a\r\nb\r\n', [('a', False), ('b', False)]),
        (b'10%\r20%\r100%\n', [('100%', False)]),
        (b'10%\r20%\r', [('20%', False)]),
        (b'a\r\r\rb\n', [('b', False)]),
        (b'\r\n', [('', False)]),
        (b'\xff\n', [('\ufffd', False)]),
        (b'\xe2\x82\n', [('\ufffd', False)]),
        (b'end \xe2\x82', [('end \ufffd', False)]),
        ('zażółć € 🎉\n'.encode(), [('zażółć € 🎉', False)]),
        (b'nul \x00 stays\n', [('nul \x00 stays', False)]),
        (b'x' * PIECE_BYTES + b'\n', [('x' * PIECE_BYTES, False)]),
        (b'x' * (PIECE_BYTES + 1) + b'\n', [('x' * PIECE_BYTES, True), ('x', False)]),
        (b'x' * (PIECE_BYTES + 1) + b'\ry\n', [('x' * PIECE_BYTES, True), ('\ry', False)]),
        (b'x' * (PIECE_BYTES - 1) + 'é'.encode() + b'\n', [('x' * (PIECE_BYTES - 1), True), ('é', False)]),
    ],
)
def test_bytes_become_lines(data: bytes, expected: list[tuple[str, bool]]) -> None:
    assert split(data) == expected
    assert split(*(data[i : i + 1] for i in range(len(data)))) == expected


def test_any_chunking_gives_the_same_lines_and_hash() -> None:
    chance = random.Random(7)
    alphabet = [
        b'a',
        b'\n',
        b'\r',
        b'\r\n',
        'é'.encode(),
        '🎉'.encode(),
        b'\xff',
        b'\xe2\x82',
        b'\xf0\x9f',
        b'x' * 9000,
        'ż'.encode() * 5000,
    ]
    for _ in range(300):
        data = b''.join(chance.choices(alphabet, k=chance.randrange(40)))
        whole = split(data)
        cuts = sorted(chance.choices(range(len(data) + 1), k=chance.randrange(30)))
        chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert split(*chunks) == whole
        assert all(len(text.encode()) <= PIECE_BYTES for text, _ in whole)
        # and read as a terminal would, it is what was written
        text = ''.join(text + ('' if partial else '\n') for text, partial in whole)
        assert terminal(text) == terminal(codecs.decode(data, 'utf-8', 'replace'))


def terminal(text: str) -> list[str]:
    """What is left of each line when a carriage return replaces it. Only lines that anything was written to count at the end."""
    shown = [next((part for part in reversed(line.split('\r')) if part), '') for line in text.split('\n')]
    return shown[:-1] if not shown[-1] else shown


def test_what_waits_is_delivered_on_demand_and_the_line_goes_on() -> None:
    splitter = Splitter()
    assert list(splitter.feed(b'wait')) == []
    assert splitter.is_unfinished
    assert list(splitter.flush()) == [(b'wait', True)]
    assert not splitter.is_unfinished
    assert list(splitter.flush()) == []
    assert list(splitter.feed(b' for it\n')) == [(b' for it', False)]


def test_a_delivered_part_is_replaced_by_what_follows_a_carriage_return() -> None:
    splitter = Splitter()
    assert [*splitter.feed(b'10%'), *splitter.flush()] == [(b'10%', True)]
    assert [*splitter.feed(b'\r20%\r30%'), *splitter.flush()] == [(b'\r30%', True)]
    assert list(splitter.feed(b'\rdone\r\n')) == [(b'\rdone', False)]


def test_a_line_of_which_a_part_was_delivered_is_closed_at_the_end() -> None:
    splitter = Splitter()
    assert [*splitter.feed(b'> '), *splitter.flush(), *splitter.close()] == [(b'> ', True), (b'', False)]


def test_a_flush_never_splits_a_character() -> None:
    splitter = Splitter()
    assert [*splitter.feed(b'a\xe2\x82'), *splitter.flush()] == [(b'a', True)]
    assert list(splitter.feed(b'\xac\n')) == [('€'.encode(), False)]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [('', [b'']), ('one', [b'one']), ('one\ntwo\n', [b'one', b'two']), ('lone \ud800', ['lone \ufffd'.encode()])],
)
def test_a_message_becomes_whole_lines(text: str, expected: list[bytes]) -> None:
    assert list(pieces(text)) == [(line, False) for line in expected]


def test_a_log_counts_hashes_and_stops_at_its_limit() -> None:
    log = Log(limit=10)
    kept = [log.add(lines.STDOUT, '', text, False) for text in (b'12345', b'123', b'1', b'')]
    assert [entry and (entry.seq, entry.stream, entry.text) for entry in kept] == [
        (0, lines.STDOUT, b'12345'),
        (1, lines.STDOUT, b'123'),
        (2, lines.SYSTEM, b'The log was cut here: more was printed than is kept.'),
        None,
    ]
    assert (log.count, log.dropped_bytes) == (3, 3)
    assert log.sha256 == hashlib.sha256(b'12345\n123\nThe log was cut here: more was printed than is kept.\n').hexdigest()


def test_a_partial_line_adds_no_newline_to_the_hash() -> None:
    log = Log()
    log.add(lines.STDOUT, '', b'a', True)
    log.add(lines.STDOUT, '', b'b', False)
    assert log.sha256 == hashlib.sha256(b'ab\n').hexdigest()
    assert log.kept_bytes == 3


def test_a_log_can_be_told_to_end_soon() -> None:
    log = Log(limit=1000)
    log.add(lines.STDOUT, '', b'12345', False)
    log.end_within(4)
    assert log.add(lines.STDOUT, '', b'123', False).stream == lines.STDOUT
    assert log.add(lines.STDOUT, '', b'', False).stream == lines.SYSTEM
    log = Log(limit=3)
    log.end_within(100)
    assert log.limit == 3
