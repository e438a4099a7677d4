"""Standard output and error of a script, without the script."""

import fcntl
import os
import signal

import pytest

from millrace_automation.sandbox.inside.streams import Unbuffered


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_all_bytes_are_written_and_counted(pipe):
    reader, writer = pipe
    stream = Unbuffered(writer)
    assert stream.write(b'one\n') == 4
    assert stream.write(b'') == 0
    assert stream.write(memoryview(b'two\n')) == 4
    assert (os.read(reader, 100), stream.count) == (b'one\ntwo\n', 8)


def test_what_a_signal_comes_behind_is_counted(pipe):
    """The kernel sends it while the bytes are written, so that its handler runs as the call comes back."""
    reader, writer = pipe
    stream = Unbuffered(writer)

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGIO, stop)
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
        with pytest.raises(KeyboardInterrupt):
            stream.write(b'ready\n')
        fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) & ~os.O_ASYNC)
    finally:
        signal.signal(signal.SIGIO, before)
    assert (os.read(reader, 100), stream.count) == (b'ready\n', 6)
