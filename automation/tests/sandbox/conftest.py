"""A real sandbox for all tests of the folder. MILLRACE_TEST_TIER caps its tier, MILLRACE_TEST_ENVIRONMENTS says where libraries are."""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from millrace_automation.sandbox import (
    Event,
    Exited,
    Limits,
    Log,
    Output,
    Process,
    Progress,
    Raised,
    Returned,
    Reuse,
    Sandbox,
    SandboxSettings,
)

AUTOMATION = Path(__file__).resolve().parents[2]
LIMITS = Limits(cpu_seconds=20)


@dataclass
class Outcome:
    events: list[Event] = field(default_factory=list)

    def stream(self, name: str) -> bytes:
        return b''.join(event.data for event in self.events if isinstance(event, Output) and event.stream == name)

    @property
    def out(self) -> bytes:
        return self.stream('stdout')

    @property
    def err(self) -> bytes:
        return self.stream('stderr')

    @property
    def logs(self) -> list[tuple[str, str]]:
        return [(event.level, event.text) for event in self.events if isinstance(event, Log)]

    @property
    def progress(self) -> list[tuple[float, str]]:
        return [(event.fraction, event.message) for event in self.events if isinstance(event, Progress)]

    @property
    def verdict(self) -> Returned | Raised | None:
        return next((event for event in self.events if isinstance(event, Returned | Raised)), None)

    @property
    def output(self) -> str:
        assert isinstance(self.verdict, Returned), (self.verdict, self.err, self.exit)
        return self.verdict.output_json

    @property
    def raised(self) -> Raised:
        assert isinstance(self.verdict, Raised), (self.verdict, self.err, self.exit)
        return self.verdict

    @property
    def exit(self) -> Exited:
        assert isinstance(self.events[-1], Exited)
        return self.events[-1]

    async def read(self, process: Process) -> 'Outcome':
        async for event in process.events():
            self.events.append(event)
        return self


@pytest.fixture(scope='module')
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter. Not one of pytest's: what all of them lie in is closed whenever another pytest starts."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope='session')
async def keeping(environments: Path) -> AsyncIterator[Sandbox]:
    """One that keeps processes."""
    tier = int(os.environ.get('MILLRACE_TEST_TIER', '2'))
    sandbox = await Sandbox.start(SandboxSettings(1, environments, slots=4, prepared=2, reuse=Reuse(8), force_tier_at_most=tier))
    assert sandbox.tier == tier, sandbox.faults
    yield sandbox
    await sandbox.stop()


@pytest.fixture(scope='session')
def outcome() -> type[Outcome]:
    return Outcome


Run = Callable[..., Awaitable[Outcome]]


@pytest.fixture(scope='session')
def environments() -> Path:
    if given := os.environ.get('MILLRACE_TEST_ENVIRONMENTS'):
        return Path(given)
    folder = AUTOMATION.parent / 'build' / 'environments'
    subprocess.run([sys.executable, str(AUTOMATION / 'environments/build.py'), str(folder)], check=True)
    return folder


@pytest.fixture(scope='session')
async def sandbox(environments: Path) -> AsyncIterator[Sandbox]:
    tier = int(os.environ.get('MILLRACE_TEST_TIER', '2'))
    sandbox = await Sandbox.start(SandboxSettings(1, environments, slots=8, prepared=4, force_tier_at_most=tier))
    assert sandbox.tier == tier, sandbox.faults
    yield sandbox
    await sandbox.stop()


@pytest.fixture(scope='session')
def run(sandbox: Sandbox) -> Run:
    async def run(source: str, input_json: str = '{}', limits: Limits = LIMITS, **options: Any) -> Outcome:
        return await Outcome().read(await sandbox.launch(source, input_json, limits, **options))

    return run


def commands_with(text: str) -> list[str]:
    """The command lines on this machine that hold the text."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            command = (folder / 'cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace')
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


@pytest.fixture(scope='session')
def commands() -> Callable[[str], list[str]]:
    return commands_with


@pytest.fixture
def mark() -> str:
    """What `commands` finds: a number of seconds that nobody else sleeps, although the same tests may run beside these as another user."""
    return str(10_000_000 + secrets.randbelow(90_000_000))
