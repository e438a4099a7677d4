"""What a script finds when it starts. Made once, by the parent, since what a child makes anew it copies page by page."""

import _sitebuiltins
import builtins
import os
import signal
import sys
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
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    channel = Channel(*streams.install())
    module.install(channel)
    return channel


def libraries_inside(plan: Plan) -> str | None:
    """Where scripts see the libraries."""
    return plan.libraries and (tree.LIBRARIES if plan.tier >= 2 else plan.libraries)
