"""What the builder is told by its environment. All faults are reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace_automation.server.settings import LOG_LEVELS, REPOSITORY, Reader


@dataclass(frozen=True)
class Settings:
    """The values in force."""

    automations_url: str
    """Where builds come from, `host:port`."""
    admin_address: str
    key: Path
    """The key that signs this builder's own tokens, and the only one that it needs."""
    environments: Path
    """The folder that the automation servers read."""
    index_url: str
    """The only place that libraries come from. Empty means pip's own configuration."""
    seconds: float
    """The longest time that a build may take."""
    size_mib: int
    """The largest environment."""
    stubs: Path
    log_level: str


def read_settings(environment: Mapping[str, str]) -> Settings:
    read = Reader(environment, 'the builder')
    automations_url = read.text('MILLRACE_AUTOMATIONS_URL')
    if not automations_url:
        read.fault('MILLRACE_AUTOMATIONS_URL', 'is needed: where builds come from, host:port')
    settings = Settings(
        automations_url=automations_url,
        admin_address=read.address('MILLRACE_BUILDER_ADMIN_ADDRESS'),
        key=read.file('MILLRACE_BUILDER_KEY', 'the private key of the builder'),
        environments=Path(read.text('MILLRACE_AUTOMATION_ENVIRONMENTS') or REPOSITORY / 'build/environments'),
        index_url=read.text('MILLRACE_BUILDER_INDEX_URL'),
        seconds=read.number('MILLRACE_BUILDER_SECONDS', 900, 1, 86400),
        size_mib=int(read.number('MILLRACE_BUILDER_SIZE_MIB', 2048, 1, 1 << 20)),
        stubs=read.folder('MILLRACE_AUTOMATION_STUBS', REPOSITORY / 'build/py', 'run `make gen`'),
        log_level=read.choice('MILLRACE_LOG_LEVEL', 'info', LOG_LEVELS),
    )
    read.finish()
    return settings
