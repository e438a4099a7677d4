"""Runs the code of users: in a fresh process each, which the kernel shuts in.

settings -> sandbox -> nursery --control socket--> inside/parent --> inside/init --> inside/script
               |-> selftest -> probes/*           process <--channel, two pipes--------------'
"""

from .events import Event, Exited, Log, Output, Progress, Raised, Returned
from .process import Process
from .sandbox import Sandbox
from .settings import Limits, SandboxSettings, SandboxUnavailable

__all__ = [
    'Event',
    'Exited',
    'Limits',
    'Log',
    'Output',
    'Process',
    'Progress',
    'Raised',
    'Returned',
    'Sandbox',
    'SandboxSettings',
    'SandboxUnavailable',
]
