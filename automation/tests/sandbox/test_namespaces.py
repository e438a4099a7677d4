"""What runs share with the machine and with each other in tier 2: nothing, also where namespaces are used again and no init stands in between."""

import asyncio
import json
import os
import signal
import textwrap
from pathlib import Path

import pytest

from millrace_automation.sandbox import Exited, Limits, Returned, Reuse, Sandbox, SandboxSettings

KINDS = ('cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts')
NAMESPACES = f"""
import os, time
def main():
    print(flush=True)
    time.sleep(0.5)
    return {{kind: os.readlink(f'/proc/self/ns/{{kind}}') for kind in {KINDS}}}
"""


@pytest.fixture(autouse=True)
def tier(sandbox):
    if sandbox.tier < 2:
        pytest.skip('needs namespaces')


def source(text: str) -> str:
    return textwrap.dedent(text).lstrip('\n')


async def test_runs_at_once_share_no_namespace_with_each_other_or_the_server(run):
    outcomes = await asyncio.gather(*[run(NAMESPACES) for _ in range(4)])
    found = [json.loads(outcome.output) for outcome in outcomes]
    for kind in KINDS:
        ours = os.readlink(f'/proc/self/ns/{kind}')
        theirs = [one[kind] for one in found]
        assert ours not in theirs, kind
        if kind not in ('uts', 'cgroup'):  # they hold a name that nobody may change, and what everyone's looks like from inside
            assert len(set(theirs)) == len(theirs), kind


async def test_a_socket_that_binds_itself_is_not_reached_by_another_run(sandbox, run):
    """Linux gives a socket a name when it asks for credentials and sends: the one way to a name without bind and connect. Sockets of datagrams,
    which send to any name, are refused; packets go to the other end of their pair, whatever name they are given.
    """
    text = source("""
    import socket

    def main():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.send(b'x')
        print(ours.getsockname()[1:].decode(), flush=True)
        ours.settimeout(2)
        try:
            return ours.recv(9).decode()
        except TimeoutError:
            return None
    """)
    send = source("""
    import socket

    def main(name):
        try:
            socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        except PermissionError:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.sendto(b'aside', b'\\0' + name.encode())
            return theirs.recv(9).decode()
    """)
    process = await sandbox.launch(text, '{}', Limits())
    events = process.events()
    name = (await anext(events)).data.decode().strip()
    assert name
    assert (await run(send, json.dumps({'name': name}))).output == '"aside"'
    assert [event.output_json async for event in events if isinstance(event, Returned)] == ['null']


async def test_what_is_left_behind_and_ends_does_not_count_any_longer(run):
    text = source("""
    import os, time

    def main():
        for _ in range(100):
            if os.fork() == 0:
                os.fork()
                os._exit(0)
            os.wait()
            while len([name for name in os.listdir('/proc') if name.isdigit()]) > 4:
                time.sleep(0.001)
        return 'done'
    """)
    assert (await run(text, limits=Limits(processes=8))).output == '"done"'


async def test_signals_do_what_they_do_elsewhere(run):
    for name in ('SIGALRM', 'SIGABRT', 'SIGKILL', 'SIGSEGV', 'SIGUSR1'):
        outcome = await run(f'import os, signal\nos.kill(os.getpid(), signal.{name})\nimport time\ntime.sleep(600)')
        assert outcome.exit.signal == signal.Signals[name], name
    assert (await run('import os\nos._exit(7)')).exit.code == 7


async def test_the_end_of_the_parent_ends_its_runs(sandbox, commands, mark):
    other = await Sandbox.start(SandboxSettings(1, Path('/nonexistent'), slots=2, prepared=2))
    try:
        text = f'import os, subprocess\nif os.fork() == 0: os.setsid()\nprint(1, flush=True)\nsubprocess.run(["sleep", "{mark}"])'
        process = await other.launch(text, '{}', Limits())
        events = process.events()
        await anext(events)
        while len(commands(mark)) < 2:
            await asyncio.sleep(0.01)
        os.kill(other._nurseries['base'].facts['pid'], signal.SIGKILL)
        last = [event async for event in events][-1]
        assert isinstance(last, Exited)
        assert last.signal == signal.SIGKILL
        async with asyncio.timeout(10):
            while commands(mark):
                await asyncio.sleep(0.01)
    finally:
        await other.stop()


async def test_only_a_run_that_may_be_kept_has_a_keeper(sandbox):
    if (await sandbox._nursery('base')).facts['has_keepers']:
        pytest.skip('all of them have one here')
    other = await Sandbox.start(SandboxSettings(1, Path('/nonexistent'), slots=2, prepared=2, reuse=Reuse(parked=2)))
    try:
        for reuse, keeper in (('', '0'), ('same', '1'), ('', '0'), ('other', '1'), ('third', '1')):
            process = await other.launch('import os\ndef main(): return os.getppid()', '{}', Limits(), reuse=reuse)
            assert [event.output_json async for event in process.events() if isinstance(event, Returned)] == [keeper]
    finally:
        await other.stop()
