"""What a script finds when it starts. Made once, by the parent, since what a child makes anew it copies page by page."""

import _sitebuiltins
import builtins
import os
import signal
import sys
import threading
import time

from . import module, streams, tree
from .channel import Channel
from .plan import Plan
from .report import SCRIPT


def make(plan: Plan) -> Channel:
    """The same for every run, whatever the server was started with."""
    os.environ.clear()
    os.environ.update(PATH='/usr/bin:/bin', HOME=tree.WORK, TMPDIR=tree.WORK, LANG='C.UTF-8', TZ='UTC')
    time.tzset()
    if libraries := libraries_inside(plan):
        sys.path.append(libraries)  # behind the standard library, which nothing may replace
    sys.argv[:] = [SCRIPT]
    builtins.exit = _sitebuiltins.Quitter('exit', 'Ctrl-D')
    builtins.quit = _sitebuiltins.Quitter('quit', 'Ctrl-D')
    builtins.help = _sitebuiltins._Helper()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_die_by_default)
    channel = Channel(*streams.install())
    module.install(channel)
    return channel


_stops: list[int] = []


def _interrupt(number: int, frame: object) -> None:
    if not _stops:  # it comes twice, and what cleans up is not to be interrupted
        _stops.append(number)
        signal.raise_signal(signal.SIGINT)  # and not KeyboardInterrupt: asyncio has its own way to deal with SIGINT


_masks: dict[int, set[int]] = {}  # by thread


def _hold_back() -> None:
    _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop(threading.get_ident()))


def _die_by_default() -> None:
    """Only the script itself is asked to stop. A process that it forks ends by SIGTERM as any other: `multiprocessing` counts on that.
    The signal is held back meanwhile, since Python forgets those that come while it is forking.
    """
    if signal.getsignal(signal.SIGTERM) is _interrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_through()


def libraries_inside(plan: Plan) -> str | None:
    """Where scripts see the libraries."""
    return plan.libraries and (tree.LIBRARIES if plan.tier >= 2 else plan.libraries)
