"""What a job's script may read by name, and how its secrets are hidden in all that it tells, before anything else looks at it."""

from collections.abc import Iterable
from dataclasses import replace

from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import Log, Output, Progress, Raised, Returned, masking


def values_of(request: job_pb2.Job) -> dict[str, dict[str, str]]:
    given = {
        'secrets': {secret.name: secret.value for secret in request.secrets},
        'variables': {variable.name: variable.value_json for variable in request.variables},
    }
    return {kind: values for kind, values in given.items() if values}


class Masks:
    def __init__(self, secrets: Iterable[job_pb2.JobSecret]):
        self._masker = masking.Masker(secret.value for secret in secrets)
        self._streams = {name: masking.Stream(self._masker) for name in ('stdout', 'stderr')}

    def hide(self, event: object) -> object:
        text = self._masker.text
        match event:
            case Output():
                return replace(event, data=self._streams[event.stream].feed(event.data))
            case Log():
                return replace(event, level=text(event.level), text=text(event.text))
            case Progress():
                return replace(event, message=text(event.message))
            case Returned():
                return Returned(self._masker.json(event.output_json))
            case Raised():
                return Raised(text(event.type), text(event.message), text(event.traceback))
        return event

    def close(self, stream: str) -> bytes:
        """What was held back: the stream is at its end."""
        return self._streams[stream].close()
