"""Runs the code of users: in a fresh process each, or one after the other in one that is kept; the kernel shuts it in.

settings -> sandbox -> nursery --control socket--> inside/parent --> inside/init --> inside/script
               |-> selftest -> probes/*           process <--channel, two pipes--------------'
               `-> residents -> resident --line, one for each that is kept--> inside/residence
"""

from .events import (
    ArtifactClosed,
    ArtifactData,
    ArtifactOpened,
    Event,
    Exited,
    Log,
    Output,
    Parsed,
    Progress,
    Raised,
    Returned,
    Settled,
    Used,
)
from .inside import masking
from .process import Process
from .sandbox import Sandbox
from .settings import Limits, Reuse, SandboxSettings, SandboxUnavailable

__all__ = [
    'ArtifactClosed',
    'ArtifactData',
    'ArtifactOpened',
    'Event',
    'Exited',
    'Limits',
    'Log',
    'Output',
    'Parsed',
    'Process',
    'Progress',
    'Raised',
    'Returned',
    'Reuse',
    'Sandbox',
    'SandboxSettings',
    'SandboxUnavailable',
    'Settled',
    'Used',
    'masking',
]
