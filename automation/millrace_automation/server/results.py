"""What a job's end means: from how its process ended to the contract's Result. Pure."""

import enum
import json
import signal

from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import Exited, Limits, Raised, Returned, Used

from .lines import well_formed

OUTPUT_BYTES = 1024 * 1024
_TYPE_CHARACTERS, _MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 200, 8_000, 32_000
_MOST = 2**31 - 1


class Stop(enum.Enum):
    """Why a job was asked to stop."""

    CANCEL = enum.auto()
    START_TO_CLOSE = enum.auto()
    HEARTBEAT = enum.auto()
    ORPHAN = enum.auto()
    DRAIN = enum.auto()
    SANDBOX = enum.auto()


_LOST = {
    Stop.ORPHAN: 'the server had no dispatcher for too long',
    Stop.DRAIN: 'the server was shut down',
    Stop.SANDBOX: 'the sandbox failed',
}


def result(
    stop: Stop | None,
    verdict: Returned | Raised | None,
    exit: Exited | None,
    limits: Limits,
    start_to_close: float,
    heartbeat: float,
) -> job_pb2.Result:
    """Everything but time, log and usage."""
    if stop is Stop.START_TO_CLOSE:
        return _error('StartToCloseTimeout', f'It took longer than {start_to_close:g} s.', job_pb2.Result.TIMED_OUT)
    if stop is Stop.HEARTBEAT:
        return _error('HeartbeatTimeout', f'It reported no progress for {heartbeat:g} s.', job_pb2.Result.TIMED_OUT)
    if isinstance(verdict, Returned):
        return _returned(verdict.output_json)
    if stop is Stop.CANCEL:
        return job_pb2.Result(outcome=job_pb2.Result.CANCELLED)
    if stop:
        return _error('WorkerLost', f'It was stopped: {_LOST[stop]}.')
    if isinstance(verdict, Raised):
        return _error(verdict.type, verdict.message, traceback=verdict.traceback)
    if exit is None:
        return _error('WorkerLost', 'Its process was lost.')
    if exit.oom:
        return _error('MemoryExceeded', f'It needed more memory than {limits.memory_mib} MiB.')
    if exit.signal:
        return _error('Killed', _killed(exit, limits))
    if exit.code:
        return _error('ExitCode', f'It ended with exit code {exit.code}.')
    return job_pb2.Result(outcome=job_pb2.Result.SUCCEEDED, output_json='null')


def note_usage(ended: job_pb2.Result, used: Exited | Used) -> None:
    ended.cpu_seconds = used.cpu_seconds
    ended.peak_memory_kib = min(used.peak_memory_kib, _MOST)


def _returned(output_json: str) -> job_pb2.Result:
    # what comes out of the sandbox may have been written by the script itself
    output = well_formed(output_json)
    if len(output.encode()) > OUTPUT_BYTES:
        return _error('OutputTooLarge', f'It returned more than {OUTPUT_BYTES} bytes of JSON.')
    if (fault := json_fault(output)) is not None:
        return _error('OutputInvalid', f'What it returned {fault}.')
    return job_pb2.Result(outcome=job_pb2.Result.SUCCEEDED, output_json=output)


def _killed(exit: Exited, limits: Limits) -> str:
    is_spent = exit.signal == signal.SIGKILL and exit.cpu_seconds >= limits.cpu_seconds
    if is_spent or exit.signal == signal.SIGXCPU:
        return f'It used more than {limits.cpu_seconds} s of processor time.'
    try:
        name = signal.Signals(exit.signal).name
    except ValueError:
        name = str(exit.signal)
    return f'Its process was ended by signal {name}.'


def _error(kind: str, message: str, outcome: 'job_pb2.Result.Outcome' = job_pb2.Result.FAILED, traceback: str = '') -> job_pb2.Result:
    return job_pb2.Result(
        outcome=outcome,
        error_type=well_formed(kind)[:_TYPE_CHARACTERS] or 'Exception',
        error_message=well_formed(message)[:_MESSAGE_CHARACTERS],
        traceback=well_formed(traceback)[-_TRACEBACK_CHARACTERS:],
    )


def invalid_input(message: str) -> job_pb2.Result:
    """The result of a job that never started, because what it was given breaks the contract."""
    return _error('InputInvalid', message)


def json_fault(text: str, is_object: bool = False) -> str | None:
    """What keeps the text from being JSON (RFC 8259), or a JSON object. None when nothing does."""
    try:
        value = _decode(text)
    except RecursionError:
        return 'is nested too deep'
    except ValueError as fault:
        return f'is not JSON: {fault}'
    return 'must be a JSON object' if is_object and not isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is no JSON value')


_decode = json.JSONDecoder(parse_constant=_refuse).decode  # made once: json.loads makes one for each call
