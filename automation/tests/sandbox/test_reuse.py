"""Processes that run one run after the other: what one run leaves never reaches the next, and what cannot be undone ends the process."""

import asyncio
import json
import random
import select
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from millrace_automation.sandbox import Limits, Parsed, Process, Raised, Returned, Sandbox
from millrace_automation.sandbox.resident import Resident

PATIENCE = 20.0
LIMITS = Limits(cpu_seconds=20)

# runs what the input says, and answers how often it has: 1 in a process that ran nothing before
STEPS = """
import asyncio, atexit, builtins, contextvars, ctypes, decimal, gc, glob, io, json, locale, logging, os, random, resource, signal, socket
import subprocess, sys, tempfile, threading, time, warnings
import millrace
runs = 0
kept = []
def begin_socket():
    for number in range(63, 3, -1):
        try:
            os.fstat(number)
            return number
        except OSError:
            pass
def main(do='', see='None'):
    global runs
    runs += 1
    exec(do, globals())
    return [runs, eval(see, globals())]
"""


@dataclass
class House:
    """A sandbox of the test's own, and why its kept processes ended."""

    sandbox: Sandbox
    ends: list[str] = field(default_factory=list)

    async def start(self, given: dict[str, Any] | None = None, source: str = STEPS, reuse: str = 'one', **options: Any) -> Process:
        limits = options.pop('limits', LIMITS)
        return await self.sandbox.launch(source, json.dumps(given or {}), limits, reuse=reuse, **options)

    async def run(self, outcome: Any, given: dict[str, Any] | None = None, **options: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await outcome.read(await self.start(given, **options))

    async def ended(self) -> str:
        """Why the last one ended; waits until one has."""
        async with asyncio.timeout(PATIENCE):
            while not self.ends:
                await asyncio.sleep(0.01)
        return self.ends[-1]


@pytest.fixture
async def house(keeping: Sandbox) -> House:
    """Begins without a kept process."""
    for resident in list(keeping.residents._waiting):
        resident.end('test')
    house = House(keeping)
    keeping.residents.on_end = house.ends.append
    return house


@pytest.fixture
def step(house: House, outcome: type) -> Callable[..., Awaitable[Any]]:
    async def step(do: str = '', see: str = 'None', **options: Any) -> Any:
        return await house.run(outcome(), {'do': do, 'see': see}, **options)

    return step


async def test_the_source_is_executed_once_and_main_is_called_for_each_run(house, step) -> None:
    first = await step(see='os.getpid()')
    again = await step(see='os.getpid()')
    assert json.loads(first.output) == [1, json.loads(again.output)[1]]
    assert json.loads(again.output)[0] == 2
    assert [event for event in first.events if isinstance(event, Parsed)] == [Parsed(True)]
    assert first.events[-1].code == again.events[-1].code == 0
    assert house.sandbox.residents.parked == 1


async def test_a_process_that_had_run_says_so(house) -> None:
    for expected in (False, True):
        process = await house.start()
        assert process.is_reused is expected
        async for _ in process.events():
            pass


async def test_a_plain_script_runs_alone(house, outcome) -> None:
    for _ in range(2):
        ended = await house.run(outcome(), source='import sys\nn = getattr(sys, "n", 0) + 1\nsys.n = n\nprint(n)\n')
        assert (ended.out, ended.output) == (b'1\n', 'null')
        assert [event for event in ended.events if isinstance(event, Parsed)] == [Parsed(False)]
    assert house.sandbox.residents.parked == 0


async def test_without_a_key_nothing_is_shared(house, step) -> None:
    for _ in range(2):
        assert json.loads((await step(reuse='')).output)[0] == 1


@pytest.mark.parametrize(
    'other',
    [{'reuse': 'two'}, {'source': STEPS + '\n'}, {'limits': Limits(cpu_seconds=21)}],
    ids=['another owner', 'another source', 'other limits'],
)
async def test_another_key_gets_another_process(step, other) -> None:
    await step()
    assert json.loads((await step(**other)).output)[0] == 1
    assert json.loads((await step()).output)[0] == 2


async def test_a_process_has_one_run_at_a_time(house, step) -> None:
    await step()
    ended = await asyncio.gather(*(step('time.sleep(0.2)') for _ in range(3)))
    assert sorted(json.loads(one.output)[0] for one in ended) == [1, 1, 2]
    assert house.sandbox.residents.parked == 3


async def test_an_ordinary_exception_does_not_end_the_process(house, step) -> None:
    failed = await step('raise ValueError("no")')
    assert (failed.raised.type, failed.raised.message) == ('ValueError', 'no')
    wrong = await house.run(type(failed)(), {'other': 1})
    assert wrong.raised.type == 'InputInvalid'
    assert json.loads((await step()).output)[0] == 2
    assert not house.ends


# what one run does, what the next one looks at, and what it is to see there
UNDONE = {
    'environment': ('os.environ["A"] = "b"; os.environ.pop("HOME")', '"A" in os.environ or "HOME" not in os.environ', False),
    'time zone': ('os.environ["TZ"] = "Asia/Tokyo"; time.tzset()', 'time.strftime("%Z")', 'UTC'),
    'working folder': ('os.mkdir("in"); os.chdir("in")', 'os.getcwd() == os.path.realpath(os.environ["HOME"])', True),
    'files': ('open("left", "w").write("x")', 'os.listdir()', ['script.py']),
    'folders nobody may enter': (
        'os.makedirs("a/b/c"); open("a/b/c/d", "w").close(); os.symlink("/", "a/root"); os.chmod("a/b", 0); os.chmod("a", 0)',
        'os.listdir()',
        ['script.py'],
    ),
    'shared memory': (
        'open(os.path.join(tempfile.gettempdir(), "sem.x"), "w").close()',
        'os.listdir(tempfile.gettempdir())',
        ['script.py'],
    ),
    'the source': ('open("script.py", "w").write("import evil")', '"evil" in open("script.py").read()', False),
    'mode of the folder': ('os.chmod(".", 0o500)', 'os.stat(".").st_mode & 0o777', 0o700),
    'umask': ('os.umask(0)', 'os.umask(0)', 0o077),
    'a handler': ('signal.signal(signal.SIGUSR1, print)', 'signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL', True),
    'an ignored signal': ('signal.signal(signal.SIGTERM, signal.SIG_IGN)', 'signal.getsignal(signal.SIGTERM) == signal.SIG_IGN', False),
    'a blocked signal': ('signal.pthread_sigmask(signal.SIG_BLOCK, [2, 15])', 'len(signal.pthread_sigmask(0, []))', 0),
    'an alarm': ('signal.setitimer(signal.ITIMER_REAL, 60)', 'signal.getitimer(signal.ITIMER_REAL)', [0, 0]),
    'arguments': ('sys.argv.append("x")', 'sys.argv', ['script.py']),
    'standard input': ('sys.stdin = io.StringIO("left")', 'sys.stdin.read()', ''),
    'standard output': ('sys.stdout = io.StringIO()', 'sys.stdout is sys.__stdout__', True),
    'its encoding': ('sys.stdout.reconfigure(encoding="ascii")', 'sys.stdout.encoding', 'utf-8'),
    'the path': ('sys.path.insert(0, "/nowhere")', '"/nowhere" in sys.path', False),
    'a trace': ('sys.settrace(lambda *a: None)', 'sys.gettrace()', None),
    'a hook': ('sys.excepthook = print', 'sys.excepthook is sys.__excepthook__', True),
    'depth of calls': ('sys.setrecursionlimit(123456)', 'sys.getrecursionlimit() == 123456', False),
    'collector': ('gc.disable()', 'gc.isenabled()', True),
    'warnings': ('warnings.simplefilter("error")', 'any(f[0] == "error" for f in warnings.filters)', False),
    'locale': ('locale.setlocale(locale.LC_ALL, "C")', 'locale.setlocale(locale.LC_ALL) == "C"', False),
    'decimals': ('decimal.getcontext().prec = 3', 'decimal.getcontext().prec', 28),
    'context variables': ('kept.append(contextvars.ContextVar("v")); kept[0].set(1)', 'kept[0].get(None)', None),
    'logging': ('logging.getLogger().addHandler(logging.StreamHandler())', 'len(logging.getLogger().handlers)', 1),
    'trace context': ('os.environ["TRACEPARENT"] = "x"', 'os.environ.get("TRACEPARENT")', None),
}


@pytest.mark.parametrize('name', UNDONE)
async def test_what_a_run_changes_is_put_back(house, step, name) -> None:
    do, see, expected = UNDONE[name]
    first = await step(do)
    second = await step(see=see)
    assert json.loads(first.output)[0] == 1
    assert json.loads(second.output) == [2, expected]
    assert not house.ends


async def test_a_run_begins_as_the_module_was_left_when_it_was_loaded(step) -> None:
    source = STEPS + 'os.environ["MODE"] = "loaded"\ndecimal.getcontext().prec = 7\nsignal.signal(signal.SIGUSR2, signal.SIG_IGN)\n'
    see = '[os.environ.get("MODE"), decimal.getcontext().prec, signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN]'
    await step('os.environ.pop("MODE"); decimal.getcontext().prec = 3; signal.signal(signal.SIGUSR2, print)', source=source)
    assert json.loads((await step(see=see, source=source)).output) == [2, ['loaded', 7, True]]


async def test_random_numbers_are_never_those_of_another_run(step) -> None:
    source = STEPS + 'random.seed(1)\n'
    chosen = random.Random(1)
    known = [chosen.random() for _ in range(5)]
    for owner in ('one', 'two'):
        for do in ('', 'random.seed(1); random.random()', ''):
            assert json.loads((await step(do, see='random.random()', source=source, reuse=owner)).output)[1] not in known[do != '' and 2 :]


async def test_each_run_has_its_own_trace(step) -> None:
    see = 'os.environ.get("TRACEPARENT")'
    told = [json.loads((await step(see=see, traceparent=trace)).output) for trace in ('00-a', '00-b', '')]
    assert told == [[1, '00-a'], [2, '00-b'], [3, None]]


async def test_functions_that_a_run_replaced_do_not_keep_it_from_being_put_in_order(step) -> None:
    await step('os.listdir = os.chdir = os.unlink = os.umask = lambda *a: []; open("left", "w").close(); os.mkdir("in")')
    assert json.loads((await step(see='[e.name for e in os.scandir(".")]')).output) == [2, ['script.py']]


async def test_atexit_is_not_run_in_between(step) -> None:
    first = await step('atexit.register(print, "bye")')
    assert first.out + (await step()).out == b''


# leftovers that nobody can undo for sure: the process is ended, for that reason
REFUSED = {
    'a thread': ('threading.Thread(target=time.sleep, args=(60,), daemon=True).start()', 'threads'),
    'a thread that prints later': (
        'threading.Thread(target=lambda: (time.sleep(0.05), [print("late") or time.sleep(0.01) for _ in range(100)]), daemon=True).start()',
        'threads',
    ),
    'a process': ('subprocess.Popen(["sleep", "60"])', 'processes'),
    'a process in a session of its own': (
        'subprocess.Popen("sleep 60 & sleep 60 &", shell=True, start_new_session=True).wait()',
        'processes',
    ),
    'a process that holds the pipes': ('subprocess.Popen("while :; do echo late; sleep 0.01; done", shell=True)', 'processes'),
    'a descriptor': ('kept.append(os.dup(1))', 'descriptors'),
    'an open file': ('kept.append(open("left", "w"))', 'descriptors'),
    'a file without a name': ('f = open("left", "w"); os.unlink("left"); kept.append(f)', 'descriptors'),
    'closed standard input': ('os.close(0)', 'descriptors'),
    'another standard input': ('f = os.open("script.py", os.O_RDONLY); os.dup2(f, 0); os.close(f)', 'state'),
    'a changed limit': ('resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))', 'state'),
    'a raised allowance': ('resource.setrlimit(resource.RLIMIT_CPU, (100, 100))', 'state'),
    'another priority': ('os.nice(1)', 'state'),
    'fewer processors': ('os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])', 'state'),
    'another filter of calls': (
        (
            'P = ctypes.create_string_buffer(__import__("struct").pack("HBBI", 6, 0, 0, 0x7FFF0000));'
            'A = ctypes.create_string_buffer(__import__("struct").pack("HxxxxxxQ", 1, ctypes.addressof(P)));'
            'assert ctypes.CDLL(None).prctl(22, 2, A, 0, 0) == 0'
        ),
        'state',
    ),
    'a process that may not be looked at': ('ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)', 'hidden'),
    'memory': ('kept.append(bytearray(300 << 20))', 'memory'),
    'no standard output': ('sys.stdout.close()', 'ended'),
    'closed descriptors': ('os.closerange(3, 256)', 'ended'),
}


@pytest.mark.parametrize('name', REFUSED)
async def test_what_cannot_be_undone_ends_the_process(house, step, name) -> None:
    do, why = REFUSED[name]
    await step(do)
    assert await house.ended() == why
    second = await step()
    assert json.loads(second.output)[0] == 1
    assert second.out == second.err == b''


def hear_of_its_end_first(resident: Resident, kill: bool = False) -> None:
    """Holds the loop until init has spoken and the parent has told that the process ended: only the end is heard of."""
    select.select([resident._line], [], [], PATIENCE)
    child = resident._child
    if kill:
        child.kill()
    while not child.exit.done():
        select.select([child.nursery._control], [], [], PATIENCE)
        child.nursery._on_readable()


async def test_why_a_process_ends_is_known_also_when_its_end_is_seen_first(house, outcome) -> None:
    process = await house.start({'do': 'kept.append(os.dup(1))'})
    hear_of_its_end_first(process._resident)
    ended = await outcome().read(process)
    assert json.loads(ended.output)[0] == 1
    assert await house.ended() == 'descriptors'


async def test_a_run_is_over_also_when_the_end_of_its_process_is_seen_first(house, outcome) -> None:
    process = await house.start()
    hear_of_its_end_first(process._resident, kill=True)
    ended = await outcome().read(process)
    assert json.loads(ended.output) == [1, None]
    assert (ended.exit.code, ended.exit.signal) == (0, None)


# a run may also keep its process from being put in order: that is seen from outside
UNTIDY = {
    'files': ('open("left", "w").close()', 'files'),
    'working folder': ('os.chdir("/")', 'state'),
    'umask': ('os.umask(0)', 'state'),
    'a handler': ('signal.signal(signal.SIGUSR1, print)', 'signals'),
    'an ignored signal': ('signal.signal(signal.SIGTERM, signal.SIG_IGN)', 'signals'),
    'a blocked signal': ('signal.pthread_sigmask(signal.SIG_BLOCK, [15])', 'signals'),
}


@pytest.mark.parametrize('name', UNTIDY)
async def test_a_process_that_was_not_put_in_order_is_ended(house, step, name) -> None:
    do, why = UNTIDY[name]
    await step()
    await step(f'{do}\nf = sys._getframe()\nwhile "script" not in f.f_locals: f = f.f_back\nf.f_locals["script"].restore = lambda: None')
    assert await house.ended() == why
    assert json.loads((await step()).output)[0] == 1


async def test_a_timer_that_python_does_not_know_ends_the_process(house, step) -> None:
    await step('assert ctypes.CDLL(None).timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0')
    assert await house.ended() == 'signals'


async def test_a_handler_that_python_does_not_know_ends_the_process(house, step) -> None:
    await step()
    await step('ctypes.CDLL(None).signal(signal.SIGUSR1, ctypes.CDLL(None).abort)')
    assert await house.ended() == 'signals'


async def test_memory_that_a_later_run_leaves_ends_the_process(house, step) -> None:
    await step()
    await step('kept.append(bytearray(100 << 20))')
    assert await house.ended() == 'memory'


async def test_memory_that_was_freed_does_not(house, step) -> None:
    await step()
    await step('x = [bytes(1000) for _ in range(100_000)]; kept.append(bytes(1000)); del x')  # one that is in the way
    assert json.loads((await step()).output)[0] == 3
    assert not house.ends


# ends of a run after which its process does not go on
ENDS = {
    'sys.exit': ('sys.exit(0)', Returned),
    'exit with a code': ('sys.exit(3)', Raised),
    'KeyboardInterrupt': ('raise KeyboardInterrupt', Raised),
    'BaseException': ('raise BaseException("x")', Raised),
    'MemoryError': ('raise MemoryError', Raised),
    'os._exit': ('os._exit(0)', type(None)),
    'a signal': ('os.kill(os.getpid(), 9)', type(None)),
    'a fork that returns': ('os.fork()', Returned),
}


@pytest.mark.parametrize('name', ENDS)
async def test_an_end_that_is_none_of_a_function_ends_the_process(house, step, name) -> None:
    do, verdict = ENDS[name]
    assert type((await step(do)).verdict) is verdict
    await house.ended()
    assert json.loads((await step()).output)[0] == 1


@pytest.mark.parametrize(('see', 'type'), [('object()', 'OutputInvalid'), ('"x" * 1_100_000', 'OutputTooLarge')])
async def test_a_result_that_is_none_ends_the_process(house, step, see, type) -> None:
    assert (await step(see=see)).raised.type == type
    await house.ended()
    assert json.loads((await step()).output)[0] == 1


async def test_a_script_that_fails_while_it_is_loaded_is_not_kept(house, outcome) -> None:
    for _ in range(2):
        assert (await house.run(outcome(), source='print("loading")\n1 / 0\ndef main(): pass\n')).out == b'loading\n'
    assert house.sandbox.residents.parked == 0


async def test_what_is_left_in_a_buffer_belongs_to_the_run_that_wrote_it(step) -> None:
    first = await step(
        'ctypes.CDLL(None).printf(b"by C\\n"); sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False)); print("by Python"); kept.append(sys.stdout)'
    )
    assert sorted(first.out.splitlines()) == [b'by C', b'by Python']
    assert (await step()).out == b''


async def test_what_garbage_prints_when_it_is_collected_belongs_to_the_run_that_made_it(step) -> None:
    first = await step('class Late:\n    def __del__(self): print("late")\nx = Late(); x.me = x; del x')
    assert (first.out, (await step('gc.collect()')).out) == (b'late\n', b'')


async def test_a_message_that_was_not_finished_is_forgotten(step) -> None:
    await step('import struct; os.write(3, struct.pack("<cBQQ", b"R", 3, 0, 0) + b"[66,")')
    assert json.loads((await step()).output) == [2, None]


async def test_positions_in_the_streams_begin_anew(step) -> None:
    await step('print("x" * 5000); print("y" * 5000, file=sys.stderr)')
    second = await step('millrace.log("a"); print("b"); millrace.log("c")')
    told = [getattr(event, 'text', None) or getattr(event, 'data', None) for event in second.events]
    assert [text for text in told if text] == ['a', b'b\n', 'c']


async def test_what_a_run_used_is_its_own(step) -> None:
    busy = await step('x = bytearray(50 << 20); t = time.process_time()\nwhile time.process_time() < t + 0.3: pass')
    idle = await step('globals().pop("x", None)')
    idle = await step()
    assert busy.exit.cpu_seconds > 0.29
    assert idle.exit.cpu_seconds < 0.2
    assert busy.exit.peak_memory_kib > 50 << 10
    assert idle.exit.peak_memory_kib < 50 << 10


async def test_each_run_has_the_whole_allowance_of_processor_time(step) -> None:
    burn = 't = time.process_time()\nwhile time.process_time() < t + 0.7: pass'
    counts = [json.loads((await step(burn, limits=Limits(cpu_seconds=1))).output)[0] for _ in range(4)]
    assert counts == [1, 2, 3, 4]


@pytest.mark.parametrize(
    'before', ['', 'signal.signal(signal.SIGXCPU, signal.SIG_IGN)', 'resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))']
)
async def test_a_run_that_uses_more_is_ended(house, step, before) -> None:
    await step(limits=Limits(cpu_seconds=1))
    ended = await step(f'{before}\nwhile True: pass', limits=Limits(cpu_seconds=1))
    assert ended.verdict is None
    assert ended.exit.signal is not None
    assert 1 <= ended.exit.cpu_seconds < 5


# says that its run is over, and goes on
WORKS_ON = 'os.write(3, b"R" + b"\\1" + bytes(16) + b"1"); os.write(begin_socket(), b"D")\nwhile True: pass'


async def test_a_process_that_works_while_it_waits_is_ended(house, step) -> None:
    await step(WORKS_ON)
    await house.ended()


async def test_a_run_that_such_a_process_was_to_get_is_run_by_another(step) -> None:
    await step(WORKS_ON)
    await step('t = time.process_time()\nwhile time.process_time() < t + 0.3: pass', reuse='two')  # meanwhile it works
    assert json.loads((await step()).output) == [1, None]


# has what it is to read of its next run by then, and was not told to begin
WHILE_ARMED = """def while_armed():
    %s
f = sys._getframe()
while "channel" not in f.f_locals: f = f.f_back
f.f_locals["channel"].receive = while_armed"""


@pytest.mark.parametrize(
    ('do', 'why'),
    [('while True: pass', 'ended'), ('os.write(begin_socket(), b"D"); time.sleep(60)', 'order'), ('os._exit(0)', 'ended')],
    ids=['works', 'says that a run is over', 'ends'],
)
async def test_a_process_that_does_anything_before_its_next_run_begins_is_ended(house, step, do, why) -> None:
    await step(WHILE_ARMED % do)
    assert await house.ended() == why
    assert json.loads((await step()).output) == [1, None]


async def test_who_parks_a_process_without_a_verdict_ends_it(house, step) -> None:
    assert (await step('os.write(begin_socket(), b"D"); time.sleep(60)')).verdict is None
    assert await house.ended() == 'verdict'


async def test_a_run_that_is_asked_to_stop_ends_with_its_process(house, step) -> None:
    await step()
    process = await house.start({'do': 'print("up"); time.sleep(60)'})
    ended = type(await step(reuse='two'))()
    async with asyncio.timeout(PATIENCE):
        async for event in process.events():
            ended.events.append(event)
            if getattr(event, 'data', b'') == b'up\n':
                process.terminate()
    assert ended.raised.type == 'KeyboardInterrupt'
    assert await house.ended() == 'stopped'


async def test_a_run_that_goes_on_although_it_was_asked_to_stop_is_the_last(house, step) -> None:
    process = await house.start({'do': 'try: print("up"); time.sleep(60)\nexcept KeyboardInterrupt: pass'})
    async for event in process.events():
        if getattr(event, 'data', b'') == b'up\n':
            process.terminate()
    assert await house.ended() == 'stopped'
    assert json.loads((await step()).output)[0] == 1


async def test_a_request_to_stop_that_comes_too_late_does_not_meet_the_next_run(house, step) -> None:
    process = await house.start()
    async for _ in process.events():
        pass
    process.terminate()
    process.kill()
    assert json.loads((await step('time.sleep(0.1)')).output)[0] == 2


async def test_a_run_that_is_killed_ends_with_its_process(house, step) -> None:
    await step()
    process = await house.start({'do': 'signal.signal(signal.SIGTERM, signal.SIG_IGN); print("up"); time.sleep(60)'})
    async with asyncio.timeout(PATIENCE):
        async for event in process.events():
            if getattr(event, 'data', b''):
                process.kill()
    assert event.signal == 9
    assert json.loads((await step()).output)[0] == 1


async def test_who_stops_listening_ends_the_process(house, step) -> None:
    await step()
    events = (await house.start({'do': 'print("up"); time.sleep(60)'})).events()
    await anext(events)
    await events.aclose()
    await house.ended()


async def test_large_inputs_outputs_and_floods_pass(house, outcome, step) -> None:
    await step()
    ended = await house.run(outcome(), {'do': 'print("x" * 3_000_000)', 'see': repr('y' * 400_000)})
    assert (len(ended.out), json.loads(ended.output)) == (3_000_001, [2, 'y' * 400_000])
    assert json.loads((await step()).output)[0] == 3


async def test_coroutines_run_one_after_the_other(house, outcome) -> None:
    source = 'import asyncio\nn = 0\nasync def main():\n    global n\n    n += 1\n    await asyncio.to_thread(lambda: None)\n    return n\n'
    assert [(await house.run(outcome(), source=source)).output for _ in range(3)] == ['1', '2', '3']


async def test_subprocesses_that_end_within_their_run_are_welcome(step) -> None:
    counts = [json.loads((await step('subprocess.run(["echo", "hi"], check=True)')).output)[0] for _ in range(3)]
    assert counts == [1, 2, 3]
