"""The module `millrace` of scripts: `log`, `progress`, `input`, `secret`, `variable` and `artifact`."""

import json
import logging
import math
import sys
import types
from typing import Any

from .artifacts import ArtifactError, Artifacts
from .channel import Channel


class _ToLog(logging.Handler):
    def __init__(self, channel: Channel):
        super().__init__()
        self._channel = channel
        self.setFormatter(logging.Formatter('%(message)s'))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.log(record.levelname, self.format(record))
        except Exception:
            self.handleError(record)


def _named(values: dict[str, str], kind: str, name: str) -> str:
    if name not in values:
        raise LookupError(f'This revision has no {kind} {name!r}: its spec must name it in {kind}s.')
    return values[name]


def install(channel: Channel) -> None:
    """Makes `import millrace` work and sends what `logging` is given, from level INFO, to the log."""

    def log(text: object, level: str | int = 'INFO') -> None:
        """Writes an entry to the log of the execution. `level` is a name or number of `logging`."""
        channel.log(logging.getLevelName(level) if isinstance(level, int) else str(level).upper(), str(text))

    def progress(fraction: float, message: str = '') -> None:
        """Says how far the script is: a fraction from 0 to 1 (what is below counts as 0, what is above as 1), and at most 500 characters."""
        value = float(fraction)
        if math.isnan(value):
            raise ValueError('the fraction is not a number')
        channel.progress(min(max(value, 0.0), 1.0), str(message))

    def input() -> dict[str, Any]:
        """What the execution was given."""
        return channel.given

    def secret(name: str) -> str:
        """The value of a secret of the workspace that the automation's spec names."""
        return _named(channel.secrets, 'secret', name)

    def variable(name: str) -> Any:
        """The value of a variable of the workspace that the automation's spec names."""
        return json.loads(_named(channel.variables, 'variable', name))

    artifacts = Artifacts(channel)

    def artifact(name: object, content: object = None, content_type: str = '', retention_days: int = 0) -> dict[str, Any]:
        """Keeps a file with the execution, and returns its id, name, size, sha256 and content_type when it is durable.

        name            what it is called; without `content` the path of the file to keep, which is called by its last part
        content         a path, bytes, a binary file, or an iterable of bytes
        content_type    its media type, by default guessed from the name
        retention_days  for how long to keep it, by default as long as the installation does, which is also the most
        Raises ArtifactError, with a `reason`, when it is not kept.
        """
        return artifacts.keep(name, content, content_type, retention_days)

    module = types.ModuleType('millrace', 'Speaks with the platform that runs this script.')
    for function in (log, progress, input, secret, variable, artifact):
        function.__module__ = 'millrace'
        setattr(module, function.__name__, function)
    module.ArtifactError = ArtifactError
    ArtifactError.__module__ = 'millrace'
    module.__all__ = ['ArtifactError', 'artifact', 'input', 'log', 'progress', 'secret', 'variable']
    sys.modules['millrace'] = module
    root = logging.getLogger()
    root.handlers[:] = [_ToLog(channel)]
    root.setLevel(logging.INFO)
