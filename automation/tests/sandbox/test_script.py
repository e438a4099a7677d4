"""What a script can rely on."""

import asyncio
import json
import textwrap

import pytest

from millrace_automation.sandbox import Limits, Log, Output, Returned, Settled


def source(text: str) -> str:
    return textwrap.dedent(text).lstrip('\n')


async def test_main_is_called_with_the_input_by_name(run):
    outcome = await run('def main(a: int, *, b="x", **more):\n    return [a, b, more]', '{"a": 1, "b": "ż", "c": null}')
    assert json.loads(outcome.output) == [1, 'ż', {'c': None}]
    assert (outcome.exit.code, outcome.exit.signal) == (0, None)


async def test_a_coroutine_is_awaited(run):
    text = 'import asyncio\nasync def main(n):\n    return sum(await asyncio.gather(*[one(i) for i in range(n)]))\nasync def one(i):\n    await asyncio.sleep(0)\n    return i'
    assert (await run(text, '{"n": 5}')).output == '10'


async def test_main_is_not_run_twice_by_its_own_guard(run):
    outcome = await run('def main():\n    print("once")\nif __name__ == "__main__":\n    main()')
    assert outcome.out == b'once\n'


async def test_a_plain_script_runs_as_main_and_asks_for_its_input(run):
    outcome = await run('import millrace\nif __name__ == "__main__":\n    print(millrace.input()["who"])', '{"who": "you"}')
    assert (outcome.out, outcome.output) == (b'you\n', 'null')


@pytest.mark.parametrize(
    ('given', 'said'), [('{}', "missing 1 required positional argument: 'a'"), ('{"a": 1, "b": 2}', "unexpected keyword argument 'b'")]
)
async def test_input_that_does_not_fit(run, given, said):
    raised = (await run('def main(a): pass', given)).raised
    assert raised.type == 'InputInvalid'
    assert said in raised.message


async def test_a_type_error_within_main_is_its_own(run):
    assert (await run('def f(): pass\ndef main(a): f(a)', '{"a": 1}')).raised.type == 'TypeError'
    assert (await run('async def main(a): len(a)', '{"a": 1}')).raised.type == 'TypeError'


@pytest.mark.parametrize('given', ['[]', '{', '1'])
async def test_input_that_is_no_object(run, given):
    assert (await run('def main(): pass', given)).raised.type == 'InputInvalid'


async def test_lines_come_as_they_are_printed(sandbox):
    process = await sandbox.launch('import millrace\nprint("first", end="")\nmillrace.progress(0.5)\nwhile True: pass', '{}', Limits())
    events = process.events()
    first = await anext(events)
    assert (first.stream, first.data) == ('stdout', b'first')
    await events.aclose()


async def test_lines_and_log_keep_their_order(run):
    text = """
    import logging, sys, millrace
    for n in range(200):
        print('out', n)
        logging.info('log %d', n)
        print('err', n, file=sys.stderr)
        millrace.log(f'own {n}', 'warning')
    """
    outcome = await run(source(text))
    assert outcome.out.split(b'\n')[:-1] == [f'out {n}'.encode() for n in range(200)]
    assert outcome.err.split(b'\n')[:-1] == [f'err {n}'.encode() for n in range(200)]
    assert outcome.logs == [entry for n in range(200) for entry in (('INFO', f'log {n}'), ('WARNING', f'own {n}'))]
    seen = {'stdout': 0, 'stderr': 0}
    for event in outcome.events:
        if isinstance(event, Output):
            seen[event.stream] += event.data.count(b'\n')
        elif isinstance(event, Log):
            n = int(event.text.split()[1])
            assert seen['stdout'] == n + 1
            assert seen['stderr'] == n + (event.level == 'WARNING')


async def test_logging_from_info_up_with_tracebacks(run):
    outcome = await run('import logging\nlogging.debug("no")\ntry:\n    1/0\nexcept Exception:\n    logging.exception("it failed")')
    assert [level for level, _ in outcome.logs] == ['ERROR']
    assert 'it failed\nTraceback' in outcome.logs[0][1]
    assert outcome.err == b''


async def test_a_long_entry_is_whole(run):
    outcome = await run('import millrace\nmillrace.log("ż" * 300_000)')
    assert outcome.logs == [('INFO', 'ż' * 300_000)]


async def test_progress_is_kept_in_bounds(run):
    outcome = await run('import millrace\nfor f in (-1, 0.25, 7): millrace.progress(f, "m" * 900)\nmillrace.progress(float("nan"))')
    assert outcome.progress == [(0.0, 'm' * 500), (0.25, 'm' * 500), (1.0, 'm' * 500)]
    assert outcome.raised.type == 'ValueError'


async def test_bytes_that_are_no_text(run):
    assert (await run(r'import sys; sys.stdout.buffer.write(b"\xff\xfe"); print("\udcff")')).out == b'\xff\xfe\xff\n'


async def test_a_line_of_5_mb(run):
    outcome = await run('print("x" * 5_000_000)\nimport os\nos.write(1, b"y" * 5_000_000)')
    assert outcome.out == b'x' * 5_000_000 + b'\n' + b'y' * 5_000_000


async def test_what_a_program_prints(run):
    text = """
    import subprocess
    subprocess.run("echo out | awk '{ print $1 }'; echo err >&2; echo named > /dev/stderr", shell=True)
    print('after')
    """
    outcome = await run(source(text))
    assert outcome.out == b'out\nafter\n'
    assert outcome.err.startswith(b'err\n')


async def test_the_traceback_has_the_scripts_own_frames_with_their_lines(run):
    outcome = await run('import json\ndef inner():\n    json.loads("{")\n\ndef main():\n    inner()')
    raised = outcome.raised
    assert (raised.type, raised.message) == (
        'JSONDecodeError',
        'Expecting property name enclosed in double quotes: line 1 column 2 (char 1)',
    )
    lines = [line.strip() for line in raised.traceback.splitlines() if '^' not in line]
    assert lines == [
        'Traceback (most recent call last):',
        'File "script.py", line 6, in main',
        'inner()',
        'File "script.py", line 3, in inner',
        'json.loads("{")',
        'json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)',
    ]
    assert outcome.exit.code == 1


async def test_a_chain_of_exceptions(run):
    raised = (await run('try:\n    {}["k"]\nexcept KeyError as e:\n    raise RuntimeError("second") from e')).raised
    assert 'direct cause' in raised.traceback
    assert '/' not in raised.traceback  # no path of the machine


async def test_a_syntax_error(run):
    raised = (await run('def main(:\n    pass')).raised
    assert raised.type == 'SyntaxError'
    assert 'File "script.py", line 1' in raised.traceback


async def test_an_exception_whose_text_fails(run):
    raised = (await run('class E(Exception):\n    def __str__(self): raise ValueError\nraise E')).raised
    assert raised.type == 'E'


async def test_endless_recursion(run):
    raised = (await run('def main(): return main()')).raised
    assert raised.type == 'RecursionError'
    assert len(raised.traceback) < 4000


@pytest.mark.parametrize(
    ('statement', 'code', 'verdict'),
    [('sys.exit()', 0, None), ('sys.exit(0)', 0, None), ('exit(3)', 3, 3), ('sys.exit("bad")', 1, 1), ('sys.exit(256)', 1, 256)],
)
async def test_exit_codes(run, statement, code, verdict):
    outcome = await run(f'import sys\n{statement}')
    assert outcome.exit.code == code
    if verdict is None:
        assert outcome.output == 'null'
    else:
        assert (outcome.raised.type, outcome.raised.message) == ('ExitCode', f'The script ended with exit code {verdict}.')


async def test_an_exit_beside_python(run):
    outcome = await run('import os\nos._exit(7)')
    assert (outcome.verdict, outcome.exit.code) == (None, 7)


async def test_a_crash_keeps_its_signal(run):
    outcome = await run('import os\nos.abort()')
    assert (outcome.verdict, outcome.exit.code, outcome.exit.signal) == (None, None, 6)


@pytest.mark.parametrize(
    ('value', 'said'),
    [
        ('object()', 'type object'),
        ('float("nan")', 'not JSON compliant'),
        ('{(1, 2): 3}', 'keys must be'),
        ('"\\ud800"', 'surrogates not allowed'),
        ('endless()', 'nested too deep'),
    ],
)
async def test_output_that_is_no_json(run, value, said):
    raised = (
        await run(f'def endless():\n    a = []\n    for _ in range(100_000): a = [a]\n    return a\ndef main(): return {value}')
    ).raised
    assert raised.type == 'OutputInvalid'
    assert said in raised.message


async def test_times_are_written_as_text(run):
    outcome = await run('from datetime import *\ndef main(): return [datetime(2024, 2, 3, tzinfo=timezone.utc), date(2024, 2, 3)]')
    assert json.loads(outcome.output) == ['2024-02-03T00:00:00+00:00', '2024-02-03']


async def test_output_up_to_1_mib(run):
    outcome = await run('def main(n): return "x" * n', json.dumps({'n': (1 << 20) - 2}))
    assert len(outcome.output) == 1 << 20
    outcome = await run('def main(n): return "x" * n', json.dumps({'n': (1 << 20) - 1}))
    assert outcome.raised.type == 'OutputTooLarge'


async def test_input_of_1_mib(run):
    outcome = await run('def main(text): return len(text)', json.dumps({'text': 'ż' * 500_000}))
    assert outcome.output == '500000'


async def stopped_once_ready(sandbox, text):
    """Asks a script to stop when it has said that it is ready, and answers all that it did."""
    process = await sandbox.launch(text, '{}', Limits())
    seen = []
    async for event in process.events():
        if not isinstance(event, Settled):
            seen.append(event)
        if isinstance(event, Output) and event.data == b'ready\n':
            process.terminate()
    return seen


async def test_asked_to_stop_its_finally_runs(sandbox):
    text = 'import time\ntry:\n    print("ready")\n    time.sleep(600)\nfinally:\n    print("cleaned")'
    seen = await stopped_once_ready(sandbox, text)
    assert b''.join(event.data for event in seen if isinstance(event, Output)) == b'ready\ncleaned\n'
    assert seen[-2].type == 'KeyboardInterrupt'
    assert seen[-1].code == 1


async def test_asked_to_stop_a_coroutine_is_cancelled(sandbox):
    text = 'import asyncio\nasync def main():\n    try:\n        print("ready")\n        await asyncio.sleep(600)\n    except asyncio.CancelledError:\n        return "stopped"'
    assert (await stopped_once_ready(sandbox, text))[-2] == Returned('"stopped"')


async def test_it_may_go_on_when_asked_to_stop(sandbox):
    text = 'import time\ndef main():\n    try:\n        print("ready")\n        time.sleep(600)\n    except KeyboardInterrupt:\n        return "saved"'
    assert (await stopped_once_ready(sandbox, text))[-2] == Returned('"saved"')


async def test_running_out_of_memory_is_said(run):
    outcome = await run('def main():\n    kept = bytearray(4 << 30)\n    return len(kept)')
    assert outcome.raised.type == 'MemoryError'
    assert 'line 2, in main' in outcome.raised.traceback


async def test_it_ends_with_main_whatever_still_runs(run):
    text = """
    import atexit, threading, time, subprocess
    atexit.register(print, 'atexit')
    def main():
        threading.Thread(target=time.sleep, args=(600,)).start()
        subprocess.Popen(['sleep', '600'])
        return 'done'
    """
    outcome = await run(source(text))
    assert (outcome.output, outcome.out) == ('"done"', b'atexit\n')


async def test_a_forked_copy_does_not_speak_for_it(run):
    text = (
        'import os\ndef main():\n    pid = os.fork()\n    if pid:\n        os.waitpid(pid, 0)\n        return "parent"\n    return "child"'
    )
    assert (await run(text)).output == '"parent"'


async def test_a_forked_process_ends_when_it_is_terminated(run):
    text = """
    import multiprocessing, os, signal, time
    def stubborn(connection):
        while True:
            try:
                connection.send(1)
                time.sleep(600)
            except BaseException:
                pass
    def main():
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=stubborn, args=(theirs,))
        process.start()
        ours.recv()
        process.terminate()
        process.join()
        codes = []
        for _ in range(20):  # at once: while Python still prepares the child
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
            os.kill(pid, signal.SIGTERM)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return [process.exitcode, *codes, signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    """
    assert json.loads((await run(source(text))).output) == [-15] * 21 + [False]


async def test_its_surroundings_are_always_the_same(run):
    outcome = await run(
        'import os, sys, locale, time\ndef main(): return [sorted(os.environ), os.getcwd() == os.environ["HOME"], sys.argv, sys.stdin.read(),'
        'sys.getfilesystemencoding(), time.tzname, os.listdir(".")]',
        traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    )
    assert json.loads(outcome.output) == [
        ['HOME', 'LANG', 'PATH', 'TMPDIR', 'TRACEPARENT', 'TZ'],
        True,
        ['script.py'],
        '',
        'utf-8',
        ['UTC', 'UTC'],
        ['script.py'],
    ]


async def test_runs_share_nothing(run):
    text = 'import os, random, tempfile, sys\ndef main():\n    found = os.path.exists("left"), "spam" in sys.modules\n    open("left", "w").close()\n    sys.modules["spam"] = sys\n    return [*found, random.random()]'
    outcomes = [json.loads(outcome.output) for outcome in await asyncio.gather(*[run(text) for _ in range(6)])]
    assert all(found[:2] == [False, False] for found in outcomes)
    assert len({found[2] for found in outcomes}) == 6


async def test_libraries_of_the_base_environment(sandbox, run):
    text = """
    import bs4, dateutil.parser, httpx, openpyxl, pydantic, requests
    class Order(pydantic.BaseModel):
        count: int
    def main():
        book = openpyxl.Workbook()
        book.active['A1'] = Order(count='3').count
        book.save('book.xlsx')
        errors = []
        for library, error in ((requests, requests.ConnectionError), (httpx, httpx.ConnectError)):
            try:
                library.get('http://127.0.0.1:1/')
            except error:
                errors.append(library.__name__)
        return [openpyxl.load_workbook('book.xlsx').active['A1'].value, bs4.BeautifulSoup('<p>x</p>', 'html.parser').p.text,
                dateutil.parser.parse('2024-02-03').year, errors]
    """
    assert json.loads((await run(source(text))).output) == [3, 'x', 2024, ['requests', 'httpx']]
    assert {name.split('==')[0] for name in sandbox.packages} >= {
        'requests',
        'httpx',
        'pydantic',
        'openpyxl',
        'beautifulsoup4',
        'python-dateutil',
    }


async def test_an_unknown_environment(sandbox):
    for name in ('none', '../..', '/usr', '.', ''):
        with pytest.raises(ValueError, match='no environment'):
            await sandbox.launch('1', '{}', Limits(), environment=name)


async def test_threads_processes_and_shared_memory(run, sandbox):
    text = """
    import concurrent.futures, multiprocessing, sqlite3, subprocess, sys, threading, zoneinfo, ssl, asyncio
    def square(n): return n * n
    def main():
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            threads = sum(pool.map(square, range(10)))
        with multiprocessing.Pool(2) as pool:
            processes = sum(pool.map(square, range(10)))
        table = sqlite3.connect('data.db').execute('select 6 * 7').fetchone()[0]
        program = subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout
        async def other():
            process = await asyncio.create_subprocess_exec('echo', 'async', stdout=-1)
            return (await process.communicate())[0].decode()
        return [threads, processes, table, program, asyncio.run(other())]
    """
    if sandbox.tier < 2:
        pytest.skip('semaphores need /dev/shm, which only a tree of its own has')
    assert json.loads((await run(source(text))).output) == [285, 285, 42, '42\n', 'async\n']
