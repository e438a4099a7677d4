"""What a job's script may read by name, and how its secrets are hidden in all that it tells, before anything else looks at it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import ArtifactOpened, Log, Output, Progress, Raised, Returned, masking

_PART_BYTES = 4096  # empty lines cost a hundred times their size in memory


def values_of(request: job_pb2.Job) -> dict[str, dict[str, str]]:
    given = {
        'secrets': {secret.name: secret.value for secret in request.secrets},
        'variables': {variable.name: variable.value_json for variable in request.variables},
    }
    return {kind: values for kind, values in given.items() if values}


class Masks:
    def __init__(self, secrets: Sequence[job_pb2.JobSecret]):
        self._masker = masking.Masker(secret.value for secret in secrets) if secrets else None
        self._streams = {name: masking.Stream(self._masker) for name in ('stdout', 'stderr')} if self._masker else {}

    def parts(self, event: object) -> Iterator[object]:
        """The event without secrets, in parts so small that none makes the outbox much larger than it may be."""
        if self._masker:
            event = self._hidden(self._masker, event)
        if isinstance(event, Output) and len(event.data) > _PART_BYTES:
            for start in range(0, len(event.data), _PART_BYTES):
                yield replace(event, data=event.data[start : start + _PART_BYTES])
        else:
            yield event

    def close(self, stream: str) -> bytes:
        """What was held back: the stream is at its end."""
        return self._streams[stream].close() if self._streams else b''

    def _hidden(self, masker: masking.Masker, event: object) -> object:
        match event:
            case Output():
                return replace(event, data=self._streams[event.stream].feed(event.data))
            case Log():
                return replace(event, level=masker.text(event.level), text=masker.text(event.text))
            case ArtifactOpened():
                return replace(event, name=masker.text(event.name), content_type=masker.text(event.content_type))
            case Progress():
                return replace(event, message=masker.text(event.message))
            case Returned():
                return Returned(masker.json(event.output_json))
            case Raised():
                return Raised(masker.text(event.type), masker.text(event.message), masker.text(event.traceback))
        return event
