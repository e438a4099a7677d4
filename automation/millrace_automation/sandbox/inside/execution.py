"""One request: the user's code from compilation to its verdict.

What a script can rely on:
- With a `main` function the module is loaded as `script` and `main` is called with the input's keys as keyword arguments; a coroutine is
  awaited. Without one it runs as `__main__`, and `millrace.input()` has the input.
- Standard output and error are unbuffered. `logging` from level INFO and `millrace.log` go to the log.
- SIGTERM arrives as KeyboardInterrupt, once, so `finally` runs; a handler of its own may be called twice. Processes that it forks keep
  the system's way, and end.
- When it returns it is over: atexit handlers run, threads that still run end at once, processes that it left behind are killed.
  A process that is kept for the next run (reuse) leaves atexit handlers alone; one with threads or processes left is not kept.
"""

import ast
import asyncio
import atexit
import contextlib
import inspect
import json
import linecache
import os
import sys
import types
from datetime import date, datetime, time
from typing import Any

from . import hygiene, network, report, rlimits, validate
from .channel import Channel

NAME = report.SCRIPT
_REHEARSAL = """import json

def main(number: int = 0, text: str = '') -> dict:
    return {'number': number, 'text': [text], 'sum': sum(range(number))}
"""


class _InvalidInput(Exception):
    """The input does not fit the parameters of `main`."""


class _InvalidOutput(Exception):
    """What `main` returned has no form in JSON."""


class Script:
    """A source, executed by its first call. What is kept for the next runs looks in by `parsed` and `loaded`."""

    def __init__(self, source: str):
        self.source = source
        self.has_main = False
        self.main: Any = None
        self.is_kept = False
        """The process goes on when the run ends well."""
        self._is_loaded = False

    def parsed(self) -> None:
        """It is about to be executed."""

    def loaded(self) -> None:
        """It was executed, and is about to be called."""

    def __call__(self, given: dict[str, Any]) -> Any:
        if not self._is_loaded:
            self._load()
        return self.call(given) if self.main is not None else None

    def call(self, given: dict[str, Any]) -> Any:
        try:
            result = self.main(**given)
        except TypeError as error:
            if error.__traceback__ and error.__traceback__.tb_next is None:  # raised by the call itself: nothing of the script ran
                raise _InvalidInput(str(error)) from None
            raise
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    def _load(self) -> None:
        source = self.source
        linecache.cache[NAME] = (len(source), None, source.splitlines(True), NAME)
        tree = ast.parse(source, NAME)
        self.has_main = validate.has_main(tree)
        self.parsed()
        name = 'script' if self.has_main else '__main__'
        scope = types.ModuleType(name)
        scope.__file__ = NAME
        sys.modules[name] = sys.modules['__main__'] = scope
        _write_source(source)
        exec(compile(tree, NAME, 'exec', dont_inherit=True), scope.__dict__)  # noqa: S102  it is what this process is for
        main = scope.__dict__.get('main')
        self.main = main if self.has_main and callable(main) else None
        self._is_loaded = True
        self.loaded()


def run(request: dict[str, Any], channel: Channel) -> int:
    """Returns the exit code. The verdict has gone through the channel by then."""
    if request['mode'] == 'validate':
        channel.returned(json.dumps(validate.validate(request['source']), ensure_ascii=False).encode())
        return 0
    set_trace(request['traceparent'])
    channel.give(request)
    network.open_gate(request)
    return judge(channel, request['input'], Script(request['source']))[0]


def rehearse() -> None:
    """Does what every run does, before anybody waits for it: the first touch of a page after a fork is a fault and a copy. Nothing of it stays."""
    tree = ast.parse(_REHEARSAL, NAME)
    validate.has_main(tree)
    scope: dict[str, Any] = {}
    exec(compile(tree, NAME, 'exec', dont_inherit=True), scope)  # noqa: S102  it is ours
    _encode(scope['main'](**_read_input('{"number": 1, "text": "a"}')))


def set_trace(traceparent: str) -> None:
    if traceparent:
        os.environ['TRACEPARENT'] = traceparent
    else:
        os.environ.pop('TRACEPARENT', None)


def judge(channel: Channel, text: str, script: Script) -> tuple[int, bool]:
    """Calls the script with the input and tells the verdict. The exit code, and whether the process may go on."""
    try:
        given = _read_input(text)
        channel.given = given
        output = _encode(script(given))
        hygiene.flush() if script.is_kept else _end_quietly()
    except SystemExit as end:
        return _exit(channel, end), False
    except BaseException as error:
        is_well = script.is_kept and isinstance(error, Exception) and not isinstance(error, MemoryError | _InvalidOutput)
        return report_raised(channel, error, is_well), is_well
    return 0, channel.returned(output) and script.is_kept


def report_raised(channel: Channel, error: BaseException, is_kept: bool = False) -> int:
    if isinstance(error, MemoryError):
        rlimits.release_reserve()
    hygiene.flush() if is_kept else _end_quietly()
    if isinstance(error, _InvalidInput | _InvalidOutput):
        channel.raised('InputInvalid' if isinstance(error, _InvalidInput) else 'OutputInvalid', str(error), '')
    else:
        channel.raised(*report.describe(error))
    return 1


def _read_input(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _InvalidInput(f'The input is not JSON: {error}') from None
    if not isinstance(given, dict):
        raise _InvalidInput('The input is no JSON object.')
    return given


def _write_source(source: str) -> None:
    """For what wants to read it, such as processes that `multiprocessing` starts anew."""
    try:
        descriptor = os.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError:
        return
    try:
        os.write(descriptor, source.encode(errors='surrogatepass'))  # Linux writes up to 2 GiB at once
    except OSError:
        pass
    finally:
        os.close(descriptor)


async def _awaited(result: Any) -> Any:
    return await result


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'), default=_plain).encode()
    except RecursionError:
        raise _InvalidOutput('The output is nested too deep or contains itself.') from None
    except (TypeError, ValueError) as error:
        raise _InvalidOutput(f'The output cannot be written as JSON: {error}.') from None


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError(f'an object of type {type(value).__name__}')


def _exit(channel: Channel, end: SystemExit) -> int:
    _end_quietly()
    if end.code is None or end.code == 0:
        channel.returned(b'null')
        return 0
    code = end.code if isinstance(end.code, int) else 1
    if code is not end.code:
        with contextlib.suppress(Exception):
            print(end.code, file=sys.stderr)
    channel.raised('ExitCode', f'The script ended with exit code {code}.', '')
    return code & 255 or 1


def _end_quietly() -> None:
    """What Python does at its end, as far as it cannot be left out. A second call finds nothing to do."""
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
