"""What a process puts back between two runs: all as the module left it when it was loaded, and the work folder empty.

It holds what it needs by its own names, since a run may have replaced those of the modules. Whatever cannot be put back raises, and the
process ends. What the kernel knows better is looked at from outside: see inspection.
"""

import _signal
import contextlib
import contextvars
import ctypes
import decimal
import gc
import locale
import logging
import random
import resource
import sys
import threading
import time
import warnings
from os import O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_TRUNC, O_WRONLY, chdir, chmod, close, environ, listdir, lstat, rmdir, umask, unlink, write
from os import open as open_file
from stat import S_ISDIR

from .report import SCRIPT

_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)
_NUMBERS = sorted(_signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP})
_HOOKS = (
    'stdin',
    'stdout',
    'stderr',
    '__stdin__',
    '__stdout__',
    '__stderr__',
    'excepthook',
    'displayhook',
    'unraisablehook',
    'breakpointhook',
)
_LISTS = ('argv', 'path', 'warnoptions')
_GROWTH_KIB = 8192  # of resident memory since the last look, before memory is given back
_libc = ctypes.PyDLL(None)
_trim = getattr(_libc, 'malloc_trim', None)


class State:
    """Taken once, after the module was loaded."""

    def __init__(self, work: str, source: str):
        self._work = work
        self._source = source.encode(errors='surrogatepass')
        self._environment = dict(environ)
        self._hooks = {name: getattr(sys, name) for name in _HOOKS}
        self._lists = {name: list(getattr(sys, name)) for name in _LISTS}
        self._streams = [(stream, _stream_state(stream)) for stream in (sys.__stdout__, sys.__stderr__)]
        self._handlers = [(number, _signal.getsignal(number)) for number in _NUMBERS]
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self._numbers = _interpreter()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._filters = list(warnings.filters)
        self._show = warnings.showwarning
        root = logging.getLogger()
        self._logging = (root.level, list(root.handlers), logging.root.manager.disable)
        self._decimal = decimal.getcontext().copy()
        self._context = contextvars.copy_context()
        self._umask = umask(0o077)
        umask(self._umask)
        self._file = self._file_state()
        gc.collect()
        gc.freeze()  # what the module made is looked through once, not after each run
        self._largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def begin(self) -> contextvars.Context:
        """Before each run. `main` is to be called in the context."""
        random.seed()  # never the numbers of another run
        context = self._context.copy()
        context.run(decimal.setcontext, self._decimal.copy())
        return context

    def restore(self) -> None:
        """After each run."""
        self._give_back()
        self._restore_signals()
        self._restore_interpreter()
        self._restore_streams()
        if dict(environ) != self._environment:
            environ.clear()
            environ.update(self._environment)
        time.tzset()
        chdir(self._work)
        umask(self._umask)
        if self._file_state() != self._file:
            self._clear()

    def _restore_signals(self) -> None:
        for kind in _TIMERS:
            _signal.setitimer(kind, 0)
        _signal.set_wakeup_fd(-1)
        for number, handler in self._handlers:
            if _signal.getsignal(number) is not handler:
                if handler is None:
                    raise RuntimeError(f'signal {number} had a handler that Python does not know')
                _signal.signal(number, handler)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)

    def _restore_interpreter(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)
        threading.settrace(None)
        threading.setprofile(None)
        if (now := _interpreter()) != self._numbers:
            is_collecting, thresholds, depth, interval, digits = self._numbers
            gc.enable() if is_collecting else gc.disable()
            gc.set_threshold(*thresholds)
            if now[2] != depth:
                sys.setrecursionlimit(depth)
            sys.setswitchinterval(interval)
            sys.set_int_max_str_digits(digits)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        if warnings.filters != self._filters:
            warnings.filters[:] = self._filters
            warnings._filters_mutated()
        warnings.showwarning = self._show
        root = logging.getLogger()
        level, handlers, disabled = self._logging
        if root.handlers != handlers:
            root.handlers[:] = handlers
        if root.level != level:
            root.setLevel(level)
        if root.manager.disable != disabled:
            logging.disable(disabled)

    def _restore_streams(self) -> None:
        for name, value in self._hooks.items():
            setattr(sys, name, value)
        for name, values in self._lists.items():
            getattr(sys, name)[:] = values
        for stream, state in self._streams:
            if _stream_state(stream) != state:  # raises for one that was closed
                encoding, errors, lines, through = state
                stream.reconfigure(encoding=encoding, errors=errors, line_buffering=lines, write_through=through)

    def _file_state(self) -> tuple:
        """What shows, to somebody who cannot set the clock, that nothing in the folder was touched."""
        work = lstat(self._work)
        with contextlib.suppress(OSError):
            file = lstat(f'{self._work}/{SCRIPT}')
            return work.st_mode, listdir(self._work), file.st_ino, file.st_ctime_ns, file.st_size
        return ()

    def _clear(self) -> None:
        chmod(self._work, 0o700)
        _empty(self._work)
        descriptor = open_file(f'{self._work}/{SCRIPT}', O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        try:
            left = memoryview(self._source)
            while left:
                left = left[write(descriptor, left) :]
        finally:
            close(descriptor)
        self._file = self._file_state()

    def _give_back(self) -> None:
        gc.collect()  # what garbage still has to say belongs to the run that made it
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if largest > self._largest + _GROWTH_KIB:
            if _trim:
                _trim(0)
            self._largest = max(self._largest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def flush() -> None:
    """What was printed and stands in a buffer belongs to the run that printed it."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()
    _libc.fflush(None)


def _stream_state(stream) -> tuple:
    if stream.closed:
        raise ValueError('a standard stream was closed')
    return stream.encoding, stream.errors, stream.line_buffering, stream.write_through


def _interpreter() -> tuple:
    return gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()


def _empty(folder: str) -> None:
    for name in listdir(folder):
        path = f'{folder}/{name}'
        if S_ISDIR(lstat(path).st_mode):
            chmod(path, 0o700)
            _empty(path)
            rmdir(path)
        else:
            unlink(path)
