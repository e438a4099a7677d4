"""What the server is told by its environment. All faults are reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace_automation.sandbox import Reuse

from .egress_rules import networks

REPOSITORY = Path(__file__).resolve().parents[3]
_PARKED = 64  # each holds some megabytes
LOG_LEVELS = ('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent')


class SettingsError(Exception):
    """Says every fault of the environment, one a line."""


@dataclass(frozen=True)
class Settings:
    """The values in force. Spans are in seconds; addresses are `host:port`, where port 0 means a free one."""

    address: str
    admin_address: str
    endpoint: str
    """Where dispatchers reach the server. Empty means the address that it listens on."""
    slots: int
    prepared: int
    """How many sandboxed processes wait ahead of demand."""
    reuse: Reuse
    """How long processes are kept for runs that may share them."""
    minimum_tier: int
    environments: Path
    egress_allow: list[str]
    """Inner networks that scripts may be let to, by name, where a workspace's policy allows it."""
    labels: dict[str, str]
    orphan_seconds: float
    """After how long without a dispatcher its jobs are stopped."""
    drain_seconds: float
    executions_url: str
    """Where to register. Empty means not at all: the server runs alone."""
    service_key: Path | None
    """The key that signs this server's own tokens. None when it runs alone."""
    service_jwks: Path
    stubs: Path
    """Python stubs made from the contracts; the descriptor image lies beside the folder."""
    telemetry: bool
    log_level: str

    @property
    def image(self) -> Path:
        return self.stubs.parent / 'image.binpb'


def read_settings(environment: Mapping[str, str]) -> Settings:
    read = Reader(environment, 'the automation server')
    address = read.address('MILLRACE_AUTOMATION_ADDRESS')
    slots = read.number('MILLRACE_AUTOMATION_SLOTS', 16, 1, 4096)
    executions_url = read.text('MILLRACE_EXECUTIONS_URL')
    endpoint = read.text('MILLRACE_AUTOMATION_ENDPOINT')
    if executions_url and not endpoint and address.rpartition(':')[0] in ('0.0.0.0', '[::]', ''):
        read.fault('MILLRACE_AUTOMATION_ENDPOINT', f'is needed: dispatchers cannot reach the address {address}')
    stubs = read.folder('MILLRACE_AUTOMATION_STUBS', REPOSITORY / 'build/py', 'run `make gen`')
    settings = Settings(
        address=address,
        admin_address=read.address('MILLRACE_AUTOMATION_ADMIN_ADDRESS'),
        endpoint=endpoint,
        slots=int(slots),
        prepared=int(read.number('MILLRACE_AUTOMATION_PREPARED', min(int(slots), 8), 0, 4096)),
        reuse=Reuse(
            parked=int(read.number('MILLRACE_AUTOMATION_PARKED', min(slots, _PARKED), 0, 4096)),
            runs=int(read.number('MILLRACE_AUTOMATION_REUSE_RUNS', 1000, 1, 1_000_000)),
            age_seconds=read.number('MILLRACE_AUTOMATION_REUSE_SECONDS', 600, 0, 86400, whole=False),
            idle_seconds=read.number('MILLRACE_AUTOMATION_REUSE_IDLE_SECONDS', 60, 0, 86400, whole=False),
            reserve_mib=int(read.number('MILLRACE_AUTOMATION_RESERVE_MIB', 256, 0, 1 << 20)),
        ),
        minimum_tier=int(read.number('MILLRACE_AUTOMATION_SANDBOX_MIN_TIER', 1, 1, 3)),
        environments=Path(read.text('MILLRACE_AUTOMATION_ENVIRONMENTS') or REPOSITORY / 'build/environments'),
        egress_allow=read.networks('MILLRACE_AUTOMATION_EGRESS_ALLOW'),
        labels=read.labels('MILLRACE_AUTOMATION_LABELS'),
        orphan_seconds=read.number('MILLRACE_AUTOMATION_ORPHAN_SECONDS', 60, 0, 86400, whole=False),
        drain_seconds=read.number('MILLRACE_AUTOMATION_DRAIN_SECONDS', 30, 0, 86400, whole=False),
        executions_url=executions_url,
        service_key=read.service_key('MILLRACE_SERVICE_KEYS') if executions_url else None,
        service_jwks=read.file('MILLRACE_SERVICE_JWKS', 'the public keys of the services that may call'),
        stubs=stubs,
        telemetry=bool(read.text('OTEL_EXPORTER_OTLP_ENDPOINT')),
        log_level=read.choice('MILLRACE_LOG_LEVEL', 'info', LOG_LEVELS),
    )
    if stubs.is_dir() and not settings.image.is_file():
        read.fault('MILLRACE_AUTOMATION_STUBS', f'has no image.binpb beside it ({settings.image}): run `make gen`')
    read.finish()
    return settings


class Reader:
    """Reads one variable after the other and collects what is wrong with them."""

    def __init__(self, environment: Mapping[str, str], what: str):
        self._environment = environment
        self._what = what
        self._faults: list[str] = []

    def fault(self, name: str, what: str) -> None:
        self._faults.append(f'  {name} {what}')

    def finish(self) -> None:
        if self._faults:
            raise SettingsError(f'{self._what} cannot start with these settings:\n' + '\n'.join(self._faults))

    def text(self, name: str) -> str:
        return self._environment.get(name, '').strip()

    def number(self, name: str, default: float, least: float, most: float, whole: bool = True) -> float:
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(int(text)) if whole else float(text)
        except ValueError:
            value = float('nan')
        if not least <= value <= most:
            self.fault(name, f'must be a {"whole " if whole else ""}number from {least:g} to {most:g}, not {text!r}')
            return default
        return value

    def address(self, name: str) -> str:
        text = self.text(name) or '127.0.0.1:0'
        _, colon, port = text.rpartition(':')
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fault(name, f'must be host:port, not {text!r}')
        return text

    def choice(self, name: str, default: str, known: tuple[str, ...]) -> str:
        text = self.text(name) or default
        if text not in known:
            self.fault(name, f'must be one of {", ".join(known)}, not {text!r}')
        return text

    def networks(self, name: str) -> list[str]:
        found = [part.strip() for part in self.text(name).split(',') if part.strip()]
        try:
            networks(found)
        except ValueError as fault:
            self.fault(name, f'must be a list of networks such as 10.1.0.0/16: {fault}')
        return found

    def labels(self, name: str) -> dict[str, str]:
        labels = {}
        for pair in filter(None, (part.strip() for part in self.text(name).split(','))):
            key, equals, value = pair.partition('=')
            if not equals or not key.strip():
                self.fault(name, f'must be a list such as zone=a,gpu=no; {pair!r} has no key and value')
            labels[key.strip()] = value.strip()
        return labels

    def file(self, name: str, meaning: str) -> Path:
        text = self.text(name)
        if not text:
            self.fault(name, f'is needed: the file with {meaning}')
        elif not Path(text).is_file():
            self.fault(name, f'names no file: {text}')
        return Path(text)

    def folder(self, name: str, default: Path, remedy: str) -> Path:
        path = Path(self.text(name) or default)
        if not path.is_dir():
            self.fault(name, f'names no folder: {path} ({remedy})')
        return path

    def service_key(self, name: str) -> Path:
        text = self.text(name)
        path = Path(text) / 'runner.pem'
        if not text:
            self.fault(name, 'is needed to register: the folder with runner.pem')
        elif not path.is_file():
            self.fault(name, f'holds no runner.pem: {text}')
        return path
