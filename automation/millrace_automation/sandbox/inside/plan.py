"""What a parent is told when it is started, and what each of its children is made by."""

import json
from dataclasses import dataclass, field

INSIDE_ID = 1000  # the only user of a sandbox, as it sees itself
HOST = 'sandbox'
NICE = 10  # a script never delays the server, nor what hands out work and tells of it
PARENT_NICE = 5  # neither does making the next sandbox
DEFAULT_LIMITS = {'memory_mib': 512, 'processes': 64, 'cpu_seconds': 60, 'disk_mib': 64}


@dataclass(frozen=True)
class Plan:
    """`tier` 2 is with namespaces, 1 without. `prepared` children wait, and `kept` more that may be kept for another run. `uids` is the range of outside users that children get, one each; empty where the
    server may not choose. `python` and `libraries` are folders that scripts read. `work` is where tier 1 makes its folders.
    """

    tier: int
    landlock: bool
    prepared: int
    kept: int
    most: int
    uids: list[int]
    python: list[str]
    libraries: str | None
    work: str
    server: int

    @classmethod
    def read(cls, text: str) -> 'Plan':
        return cls(**json.loads(text))


@dataclass(frozen=True)
class ChildPlan:
    plan: Plan
    slot: int
    groups: list[str] = field(default_factory=list)
    """The control groups to join."""
    entrances: list[int] = field(default_factory=list)
    """The same as descriptors."""
    has_memory_group: bool = False
    uid: int | None = None
    """The outside user, when it has its own."""
    has_keeper: bool = True
    """An init of its own stands between it and the parent."""
    shared_processes: int = 0
    """How many processes the user has beside the run's, when it has no user and no namespace of its own."""

    @property
    def has_namespaces(self) -> bool:
        return self.plan.tier >= 2

    @property
    def work(self) -> str:
        return f'{self.plan.work}/{self.slot}'

    def process_slots(self, processes: int) -> int:
        """For RLIMIT_NPROC, which counts a user's threads within its user namespace, init included. Where runs share a user the sum of
        all of them counts; there the watch holds each one to its own.
        """
        own = processes + self.has_keeper
        return own if self.has_namespaces or self.uid is not None else self.shared_processes + self.plan.most * own
