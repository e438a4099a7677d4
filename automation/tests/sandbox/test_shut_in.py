"""What a script cannot do, and how each attempt ends."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from millrace_automation.sandbox import Exited, Limits, Output, Raised, Returned

NEIGHBOUR = 'import time\ndef main():\n    for n in range(40):\n        print(n)\n        time.sleep(0.05)\n    return "undisturbed"'
NUMBERS = b''.join(b'%d\n' % n for n in range(40))


def source(text: str) -> str:
    return textwrap.dedent(text).lstrip('\n')


async def test_reading_what_is_secret(run):
    raised = (await run('open("/etc/shadow")')).raised
    assert raised.type in ('PermissionError', 'FileNotFoundError')


async def test_opening_a_socket(run):
    raised = (await run('import socket\nsocket.create_connection(("127.0.0.1", 80))')).raised
    assert raised.type == 'PermissionError'
    assert (await run('import asyncio, socket\na, b = socket.socketpair()\na.send(b"x")\nprint(b.recv(1))')).out == b"b'x'\n"


async def test_the_filter_ends_no_script_for_an_unknown_call(run):
    text = 'import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef main(): return [libc.syscall(n) == -1 and ctypes.get_errno() for n in (165, 101, 900)]'
    if os.uname().machine == 'x86_64':
        assert json.loads((await run(text)).output) == [1, 1, 38]


async def test_a_fork_bomb(sandbox, run):
    neighbour = asyncio.ensure_future(run(NEIGHBOUR))
    outcome = await run('import os\nwhile True:\n    os.fork()', limits=Limits(processes=32, cpu_seconds=3))
    assert outcome.exit.signal or outcome.raised.type == 'BlockingIOError'
    outcome = await neighbour
    assert (outcome.out, outcome.output) == (NUMBERS, '"undisturbed"')


async def test_a_fork_bomb_that_goes_on_is_killed(sandbox, run, commands, mark):
    text = f"import os, time\nprint('x')\nos.system('f() {{ f | f & }}; f; : {mark}')\ntime.sleep(600)"
    process = await sandbox.launch(text, '{}', Limits())
    neighbour = asyncio.ensure_future(run(NEIGHBOUR))
    events = process.events()
    await anext(events)
    assert (await neighbour).out == NUMBERS
    process.kill()
    seen = [event async for event in events]
    assert seen[-1].signal == signal.SIGKILL
    assert not commands(mark)


async def test_a_flood_waits_for_its_reader(sandbox):
    text = source("""
    def main():
        written = 0
        try:
            while True:
                written += len(b'y' * 1023) + 1
                print('y' * 1023)
        except KeyboardInterrupt:
            return written
    """)
    process = await sandbox.launch(text, '{}', Limits())
    events = process.events()
    first = await anext(events)
    # nobody reads now: the pipe fills and the script stands still, however long that is
    waiting = await _stands_still(process)
    process.terminate()
    await process._child.exit
    rest = [event async for event in events]
    total = len(first.data) + sum(len(event.data) for event in rest if isinstance(event, Output))
    assert 0 < waiting < 200_000
    assert total < 300_000
    assert isinstance(rest[-1], Exited)


async def _stands_still(process) -> int:
    """Waits until no more bytes come into the pipe, and says how many are in it."""
    import fcntl
    import termios

    last, same = -1, 0
    while same < 5:
        held = bytearray(4)
        fcntl.ioctl(process._pipes[0].descriptor, termios.FIONREAD, held)
        count = int.from_bytes(held, sys.byteorder)
        same = same + 1 if count == last else 0
        last = count
        await asyncio.sleep(0.02)
    return last


async def test_a_flood_that_nobody_reads_does_not_wake_the_server(sandbox, run):
    process = await sandbox.launch("while True: print('y' * 100)", '{}', Limits())
    events = process.events()
    await anext(events)
    await anext(events)
    async with asyncio.timeout(30):
        while process._watched:
            assert (await run('print(1)')).out == b'1\n'
    await events.aclose()


async def test_a_flood_leaves_the_others_alone(sandbox, run):
    process = await sandbox.launch("while True: print('y' * 100)", '{}', Limits())

    async def drain() -> Exited:
        async for event in process.events():
            last = event
        return last

    draining = asyncio.ensure_future(drain())
    outcome = await run(NEIGHBOUR)
    process.kill()
    assert (await draining).signal == signal.SIGKILL
    assert (outcome.out, outcome.output) == (NUMBERS, '"undisturbed"')


async def test_memory_of_one_process(run):
    outcome = await run('def main(): return len(bytearray(700 << 20))')
    assert outcome.exit.oom or outcome.raised.type == 'MemoryError'


async def test_memory_of_all_processes_together(sandbox, run):
    text = source("""
    import os, time
    for _ in range(20):
        if os.fork() == 0:
            kept = bytearray(os.urandom(4096)) * (60 << 8)
            time.sleep(600)
    kept = bytearray(os.urandom(4096)) * (100 << 8)
    time.sleep(3)
    print('lived')
    """)
    outcome = await run(text, limits=Limits(memory_mib=256))
    if 'memory:watch' in sandbox.limits:
        assert outcome.exit.oom
        assert outcome.out == b''
    else:  # the kernel picks what it kills: children too
        assert outcome.exit.oom or outcome.out == b'lived\n'


async def test_memory_that_grows_ends_in_a_typed_way(run):
    neighbour = asyncio.ensure_future(run(NEIGHBOUR))
    outcome = await run('kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))', limits=Limits(memory_mib=128))
    assert outcome.exit.oom or outcome.raised.type == 'MemoryError'
    assert (await neighbour).output == '"undisturbed"'


async def test_sleeping_for_ever_is_killed(sandbox):
    process = await sandbox.launch(
        'import time, signal\nsignal.signal(15, signal.SIG_IGN)\nprint(1)\nwhile True: time.sleep(600)', '{}', Limits()
    )
    events = process.events()
    await anext(events)
    process.terminate()
    process.kill()
    seen = [event async for event in events]
    assert (seen[-1].code, seen[-1].signal, seen[-1].oom) == (None, signal.SIGKILL, False)


async def test_processor_time(run):
    outcome = await run('while True: pass', limits=Limits(cpu_seconds=1))
    assert outcome.exit.signal in (signal.SIGXCPU, signal.SIGKILL)
    assert outcome.exit.cpu_seconds > 0.5


async def test_files(sandbox, run):
    text = 'def main(n):\n    for i in range(n):\n        with open(str(i), "wb") as f: f.write(bytes(8 << 20))\n    return n'
    assert (await run(text, '{"n": 1}', limits=Limits(disk_mib=16))).output == '1'
    assert (await run(text, '{"n": 12}', limits=Limits(disk_mib=128))).output == '12'
    if sandbox.tier >= 2:
        assert (await run(text, '{"n": 9}')).raised.type == 'OSError'
    assert (await run(text, '{"n": 1}', limits=Limits(disk_mib=4))).raised.type == 'OSError'


async def test_a_deep_tree_of_files_is_removed(run):
    text = 'import os\nfor _ in range(3000):\n    os.mkdir("d")\n    os.chdir("d")\nos.chmod(".", 0)'
    assert (await run(text)).output == 'null'
    assert json.loads((await run('import os\ndef main(): return os.listdir(".")')).output) == ['script.py']


DAEMON = """
import os, sys, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv('/bin/sleep', ['sleep', MARK])
        os._exit(0)
"""


async def test_a_daemon_is_gone_when_the_script_is(run, commands, mark):
    outcome = await run(DAEMON.replace('MARK', repr(mark)) + 'daemon()\ntime.sleep(0.1)')
    assert outcome.output == 'null'
    assert not commands(mark)


async def test_a_daemon_is_killed_with_the_script(sandbox, commands, mark):
    text = DAEMON.replace('MARK', repr(mark)) + 'daemon()\nprint("ready")\ntime.sleep(600)'
    process = await sandbox.launch(text, '{}', Limits())
    events = process.events()
    await anext(events)
    while not commands(mark):
        await asyncio.sleep(0.01)
    process.kill()
    assert [event async for event in events][-1].signal == signal.SIGKILL
    assert not commands(mark)


async def test_closing_the_events_kills_the_script(sandbox, commands, mark):
    process = await sandbox.launch(f'import subprocess\nprint(1)\nsubprocess.run(["sleep", "{mark}"])', '{}', Limits())
    events = process.events()
    await anext(events)
    await events.aclose()
    while commands(mark):
        await asyncio.sleep(0.01)


async def test_it_cannot_kill_its_keeper(run):
    text = 'import os, signal\nfor pid in (1, os.getppid() or 1, -1):\n    try:\n        os.kill(pid, signal.SIGKILL)\n    except OSError:\n        pass\nprint("here")'
    outcome = await run(text)
    assert outcome.out == b'here\n'
    assert outcome.exit.code == 0


async def test_it_cannot_touch_the_memory_of_its_keeper(run):
    text = source("""
    import os

    def main():
        for pid in {1, os.getppid() or 1}:
            for name in ('mem', 'maps', 'environ', 'auxv', 'fd/0', 'fdinfo/0', 'root/etc', 'cwd/etc', 'ns/pid', 'stack', 'syscall'):
                try:
                    with open(f'/proc/{pid}/{name}', 'rb') as file:
                        file.read(1)
                except OSError as fault:
                    if fault.errno in (1, 2, 13):  # refused, or no such process
                        continue
                return name
            try:
                return os.listdir(f'/proc/{pid}/fd')
            except OSError:
                pass
    """)
    assert (await run(text)).output == 'null'


async def test_it_sees_itself_and_its_keeper_only(sandbox, run):
    if sandbox.tier < 2:
        pytest.skip('needs a process namespace')
    assert json.loads((await run('import os\ndef main(): return sorted(int(p) for p in os.listdir("/proc") if p.isdigit())')).output) == [
        1,
        2,
    ]


CANARY = """
import asyncio, sys
from pathlib import Path
from millrace_automation.sandbox import *
async def main():
    secret = Path('/proc/self/environ').read_bytes().split(b'CANARY=')[1].split(b'\\0')[0].decode()
    sandbox = await Sandbox.start(SandboxSettings(1, Path('/nonexistent'), 2, 1, force_tier_at_most=int(sys.argv[1])))
    half = len(secret) // 2
    process = await sandbox.launch(sys.stdin.read(), '{"halves": ["%s", "%s"]}' % (secret[:half], secret[half:]), Limits(cpu_seconds=60))
    async for event in process.events():
        print(event)
    await sandbox.stop()
asyncio.run(main())
"""
SEARCH = """
import os
def main(halves):
    first, second = (half.encode() for half in halves)
    found, read = [], 0
    def look(data, where):
        position = data.find(first)
        while position >= 0:
            if data.startswith(second, position + len(first)):
                found.append(where)
            position = data.find(first, position + 1)
    for top in ('/proc', '/tmp', '/etc', '/dev/shm', '/home', '/root', '/run', '/var', os.getcwd()):
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if name not in ('task', 'map_files', 'fd')]
            for name in files:
                if name in ('mem', 'kmsg', 'kcore', 'clear_refs') or not os.path.exists(f'{folder}/{name}'):
                    continue
                try:
                    with open(f'{folder}/{name}', 'rb') as file:
                        look(file.read(1 << 20), f'{folder}/{name}')
                        read += 1
                except OSError:
                    pass
    look(repr(dict(os.environ)).encode(), 'environment')
    try:
        maps = open('/proc/self/maps').read().splitlines()
    except OSError:
        return [found, read, 0]
    memory = os.open('/proc/self/mem', os.O_RDONLY)
    searched = 0
    for line in maps:
        if line.split()[1].startswith('r') and '[v' not in line:
            start, end = (int(part, 16) for part in line.split()[0].split('-'))
            try:
                look(os.pread(memory, end - start, start), 'own memory')
                searched += end - start
            except OSError:
                pass
    return [found, read, searched]
"""


async def test_a_canary_in_the_servers_environment_is_not_found(sandbox):
    python = os.path.realpath(sys.executable)
    environment = {'CANARY': os.urandom(24).hex(), 'PYTHONPATH': str(Path(__file__).parents[2])}
    done = await asyncio.to_thread(
        subprocess.run,
        [python, '-c', CANARY, str(sandbox.tier)],
        input=SEARCH,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    match = re.search(r"Returned\(output_json='\[(\[.*?\]),(\d+),(\d+)\]'\)", done.stdout)
    assert match, done
    assert match[1] == '[]'
    if sandbox.tier >= 2:
        assert int(match[2]) > 20
        assert int(match[3]) > 1 << 20


async def test_each_run_has_a_user_of_its_own(sandbox):
    if os.geteuid() != 0:
        pytest.skip('an ordinary user has only itself')
    processes = [await sandbox.launch('print(1)\nimport time\ntime.sleep(600)', '{}', Limits()) for _ in range(3)]
    events = [process.events() for process in processes]
    for one in events:
        await anext(one)
    users = {os.stat(folder).st_uid for folder in Path('/proc').glob('[0-9]*') if _has_sandboxed_user(folder)}
    for one in events:
        await one.aclose()
    assert len(users) >= 3
    assert 0 not in users


def _has_sandboxed_user(folder: Path) -> bool:
    try:
        return folder.stat().st_uid > 1_000_000
    except OSError:
        return False


async def test_more_runs_at_once_than_expected_wait_for_their_turn(run):
    outcomes = await asyncio.gather(*[run('def main(n): return n', json.dumps({'n': n})) for n in range(40)])
    assert [outcome.output for outcome in outcomes] == [str(n) for n in range(40)]


async def test_hostile_packets(sandbox, run):
    text = source(r"""
    import os, socket, struct
    channel = socket.socket(fileno=3)
    head = lambda kind, flags=1: struct.pack('<cBQQ', kind, flags, 1 << 62, 0)
    for packet in (b'x', b'', head(b'?') + b'x', head(b'P') + b'[]', head(b'P') + b'[NaN, ""]', head(b'P') + b'[1e999, ""]', head(b'E') + b'{}',
                   head(b'E') + b'[' * 50_000, head(b'L') + b'\xff\0\xff', head(b'L'), head(b'P', 3) + b'x' * 60_000, head(b'P', 2) + b'x' * 60_000,
                   struct.pack('<cBQQ', b'L', 1, (1 << 64) - 1, (1 << 64) - 1) + b'INFO\0far'):
        if packet:
            channel.send(packet)
    for number in range(100):
        channel.send(head(b'L', 1 if number == 0 else 2) + b'x' * 60_000)
    socket.send_fds(channel, [b'Z'], [1, 2])
    print('still here')
    """)
    outcome = await run(text)
    assert outcome.out == b'still here\n'
    assert outcome.output == 'null'
    assert ('INFO', 'far') in outcome.logs
    assert sum(len(text) for _, text in outcome.logs) < 3 << 20


@pytest.mark.parametrize(
    ('body', 'expected'),
    [
        ('b"R\\1" + bytes(16) + b"{"', Raised('OutputInvalid', 'The output is not JSON.', '')),
        ('b"R\\1" + bytes(16) + b"NaN"', Raised('OutputInvalid', 'The output is not JSON.', '')),
        ('b"R\\1" + bytes(16) + b"\\xff"', Raised('OutputInvalid', 'The output is not JSON.', '')),
        ('b"R\\1" + bytes(16) + b"[" * 50000', Raised('OutputInvalid', 'The output is not JSON.', '')),
        ('b"R\\1" + bytes(16) + b"[1]"', Returned('[1]')),
    ],
)
async def test_a_forged_verdict_is_checked(run, body, expected):
    outcome = await run(f'import socket\nchannel = socket.socket(fileno=3)\nchannel.send({body})\nchannel.send({body})\nchannel.close()')
    assert [event for event in outcome.events if isinstance(event, Returned | Raised)] == [expected]


async def test_a_forged_verdict_without_end(run):
    text = "import socket\nchannel = socket.socket(fileno=3)\nchannel.send(b'R\\3' + bytes(16) + b'\"')\nwhile True: channel.send(b'R\\2' + bytes(16) + b'x' * 60_000)"
    outcome = await run(text, limits=Limits(cpu_seconds=5))
    assert outcome.verdict.type == 'OutputTooLarge'
    assert outcome.exit.code == 1


async def test_a_channel_that_is_closed(run):
    outcome = await run('import os\nos.close(3)\nprint("out")\nimport millrace\nmillrace.log("lost")')
    assert (outcome.out, outcome.verdict, outcome.exit.code) == (b'out\n', None, 0)
