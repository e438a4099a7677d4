"""What the sandbox is told: by the server, once, and by each run."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SandboxSettings:
    min_tier: int
    """The lowest tier that may run anything. Below it, and at tier 0, every launch is refused."""
    environments: Path
    """Folder with one folder of libraries for each environment; `base` is the default one. One that is missing has none."""
    slots: int
    """How many runs at once are to be expected."""
    prepared: int
    """How many children wait ahead of demand."""
    reuse: 'Reuse' = field(default_factory=lambda: Reuse(0))
    force_tier_at_most: int = 2
    """For tests. 1: without namespaces; 0: without Landlock too, which the self-test then finds out."""


@dataclass(frozen=True)
class Reuse:
    """How long processes are kept for runs that may share them."""

    parked: int
    """How many wait at once, beside those that run. 0: none is kept."""
    runs: int = 1000
    """After so many runs a process has served."""
    age_seconds: float = 600
    idle_seconds: float = 60
    reserve_mib: int = 256
    """None wait while the machine has less memory than that."""


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    memory_mib: int = 512
    """All its processes together where a control group or the watch holds them, else each."""
    processes: int = 64
    """Processes and threads at once."""
    cpu_seconds: int = 60
    """Processor time of each process."""
    disk_mib: int = 64
    """Tier 2: the files in its folder together. Tier 1: each file."""


class SandboxUnavailable(RuntimeError):
    """The sandbox cannot run anything now: the tier is too low, or its parent cannot be started."""
