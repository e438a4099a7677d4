"""What is said about an exception: as Python prints it, but with the script's own frames only."""

import traceback

SCRIPT = 'script.py'
_TRACEBACK_CHARACTERS = 32_000


def describe(error: BaseException) -> tuple[str, str, str]:
    """Type, message and traceback, whole: they are cut when the secrets in them are hidden."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    _keep_own_frames(told, set())
    return type(error).__name__, _message(error), ''.join(told.format())


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return '<the exception has no message: its __str__ failed>'


def shortened(text: str) -> str:
    """A long traceback without its middle."""
    if len(text) <= _TRACEBACK_CHARACTERS:
        return text
    half = _TRACEBACK_CHARACTERS // 2 - 20
    return f'{text[:half]}\n  [...]\n{text[-half:]}'


def _keep_own_frames(told: traceback.TracebackException, seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename == SCRIPT])
    for other in (told.__cause__, told.__context__, *(getattr(told, 'exceptions', None) or ())):
        if other is not None:
            _keep_own_frames(other, seen)
