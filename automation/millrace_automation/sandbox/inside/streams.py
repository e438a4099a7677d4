"""Standard output and error of a script: written at once, and counted."""

import builtins
import io
import sys

_print = builtins.print


class Unbuffered(io.FileIO):
    """A standard stream whose bytes are written at once, all of them, and counted."""

    def __init__(self, descriptor: int):
        super().__init__(descriptor, 'wb', closefd=False)
        self.count = 0

    def seekable(self) -> bool:
        return False  # whatever the descriptor was when this was made

    def write(self, data) -> int:
        view = memoryview(data).cast('B')
        written = 0
        while written < len(view):
            steps: list[int | None] = []
            try:
                steps.extend(map(super().write, (view[written:],)))  # one call: what a handler raises behind it finds them written down
            finally:
                step = (steps and steps[0]) or 0
                self.count += step
            written += step
        return written


def install() -> tuple[Unbuffered, Unbuffered]:
    output, error = Unbuffered(1), Unbuffered(2)
    for name, raw, errors in (('stdout', output, 'surrogateescape'), ('stderr', error, 'backslashreplace')):
        stream = io.TextIOWrapper(raw, encoding='utf-8', errors=errors, write_through=True)
        stream.mode = 'w'
        setattr(sys, name, stream)
        setattr(sys, f'__{name}__', stream)
    builtins.print = print
    return output, error


def print(*values: object, sep: str | None = ' ', end: str | None = '\n', file: object = None, flush: bool = False) -> None:
    """Prints the values to a stream, or to sys.stdout by default.

    sep   string inserted between values, default a space
    end   string appended after the last value, default a newline
    file  a file-like object; defaults to the current sys.stdout
    flush whether to forcibly flush the stream
    """
    if isinstance(sep, str) and isinstance(end, str):  # one write for one call: without a buffer each argument would be its own
        _print(sep.join(map(str, values)) + end, end='', file=file, flush=flush)
    else:
        _print(*values, sep=sep, end=end, file=file, flush=flush)
