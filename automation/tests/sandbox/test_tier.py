"""The tier is what the self-test proves, and stays so while parents come and go."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millrace_automation.sandbox import Event, Exited, Limits, Returned, Sandbox, SandboxSettings, SandboxUnavailable
from millrace_automation.sandbox import sandbox as module
from millrace_automation.sandbox.inside import ground, landlock
from millrace_automation.sandbox.inside.cgroup import own_groups
from millrace_automation.sandbox.inside.plan import Plan
from millrace_automation.sandbox.users import user_ranges

HELLO = 'def main(): return "hello"'


async def start(tier: int = 2, minimum: int = 1) -> Sandbox:
    return await Sandbox.start(SandboxSettings(minimum, Path('/nonexistent'), slots=2, prepared=2, force_tier_at_most=tier))


def returned(events: list[Event]) -> str:
    return next(event.output_json for event in events if isinstance(event, Returned))


async def output(sandbox: Sandbox) -> str:
    process = await sandbox.launch(HELLO, '{}', Limits())
    events = [event async for event in process.events()]
    return returned(events)


async def test_all_probes_are_refused(sandbox):
    assert len(sandbox.probes) > 40
    assert all(refused for _, refused in sandbox.probes)
    assert {limit.split(':')[0] for limit in sandbox.limits} == {'memory', 'pids', 'files', 'disk', 'cpu'}
    assert not any(str(Path(__file__).parents[2]) in name for name, _ in sandbox.probes)


async def test_without_landlock_and_namespaces_nothing_runs():
    sandbox = await start(0)
    try:
        assert (sandbox.tier, sandbox.limits) == (0, [])
        assert any(not refused for _, refused in sandbox.probes)
        assert sandbox.faults
        with pytest.raises(SandboxUnavailable, match='tier 0'):
            await sandbox.launch(HELLO, '{}', Limits())
    finally:
        await sandbox.stop()


@pytest.mark.skipif(os.geteuid() == 0, reason='root gives each run a user of its own')
@pytest.mark.skipif(landlock.version() >= landlock.SCOPES_SINCE, reason='the kernel keeps signals in')
async def test_where_signals_reach_the_server_an_ordinary_user_has_no_tier_1():
    sandbox = await start(1)
    try:
        assert (sandbox.tier, sandbox.faults) == (0, ['tier 1: not refused: signal the server'])
        with pytest.raises(SandboxUnavailable, match='tier 0'):
            await sandbox.launch(HELLO, '{}', Limits())
    finally:
        await sandbox.stop()


async def test_below_the_lowest_tier_nothing_runs(sandbox):
    other = await start(sandbox.tier, minimum=3)
    try:
        assert other.tier == sandbox.tier
        with pytest.raises(SandboxUnavailable, match='3 is the lowest'):
            await other.launch(HELLO, '{}', Limits())
    finally:
        await other.stop()


async def test_a_parent_that_is_killed_is_replaced(sandbox):
    other = await start(sandbox.tier)
    try:
        process = await other.launch('import time\nprint(1)\ntime.sleep(600)', '{}', Limits())
        events = process.events()
        await anext(events)
        parent = other._nurseries['base']
        os.kill(parent.pid, signal.SIGKILL)
        rest = [event async for event in events]
        assert isinstance(rest[-1], Exited)
        assert (rest[-1].code, rest[-1].signal) == (None, signal.SIGKILL)
        assert await output(other) == '"hello"'
        assert other._nurseries['base'] is not parent
        async with asyncio.timeout(30):
            while Path(parent.plan.work).exists():
                await asyncio.sleep(0.01)
    finally:
        await other.stop()


async def test_a_parent_is_replaced_now_and_then_and_its_runs_go_on(sandbox, monkeypatch):
    monkeypatch.setattr(module, '_LAUNCHES_OF_A_PARENT', 2)
    other = await start(sandbox.tier)
    try:
        process = await other.launch('import sys\nprint(1)\nsys.stdout.flush()\nimport time\ntime.sleep(2)\nprint(2)', '{}', Limits())
        events = process.events()
        await anext(events)
        parents = set()
        while len(parents) < 3:
            assert await output(other) == '"hello"'
            parents.add(other._nurseries['base'].pid)
        assert [event async for event in events][-1].code == 0
        while other._old:
            await asyncio.sleep(0.01)
    finally:
        await other.stop()


async def test_runs_that_end_before_their_parent_hears_of_them_are_replaced(sandbox):
    other = await Sandbox.start(SandboxSettings(1, Path('/nonexistent'), slots=2, prepared=12, force_tier_at_most=sandbox.tier))
    try:
        for _ in range(4):
            assert await asyncio.gather(*[output(other) for _ in range(16)]) == ['"hello"'] * 16
        waiting = other._nurseries['base']._pools[0].ready
        async with asyncio.timeout(30):
            while len(waiting) < 12 or any(child.exit.done() for child in waiting):
                await asyncio.sleep(0.01)
    finally:
        await other.stop()


async def test_stop_ends_everything(sandbox, commands, mark):
    other = await start(sandbox.tier)
    process = await other.launch(f'import subprocess\nprint(1)\nsubprocess.run(["sleep", "{mark}"])', '{}', Limits())
    events = process.events()
    await anext(events)
    pids = [other._nurseries['base'].pid, *_children(other._nurseries['base'].pid)]
    assert len(pids) > 1
    await other.stop()
    assert [event async for event in events][-1].signal == signal.SIGKILL
    assert not commands(mark)
    assert not [pid for pid in pids if Path(f'/proc/{pid}').exists()]
    with pytest.raises(SandboxUnavailable):
        await other.launch(HELLO, '{}', Limits())


async def test_a_server_that_is_killed_leaves_nothing(sandbox, commands, mark):
    code = (
        'import asyncio, os, signal, sys\nfrom pathlib import Path\nfrom millrace_automation.sandbox import *\n'
        'async def main():\n'
        f'    s = await Sandbox.start(SandboxSettings(1, Path("/nonexistent"), 2, 2, force_tier_at_most={sandbox.tier}))\n'
        f'    p = await s.launch("import os\\nprint(1)\\nos.system(\'sleep {mark} & sleep {mark}\')", "{{}}", Limits())\n'
        '    await anext(p.events())\n'
        '    print(s._nurseries["base"].pid, flush=True)\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
        'asyncio.run(main())'
    )
    process = await asyncio.create_subprocess_exec(
        os.path.realpath(sys.executable), '-c', code, stdout=asyncio.subprocess.PIPE, env={'PYTHONPATH': str(Path(__file__).parents[2])}
    )
    out, _ = await process.communicate()
    while Path(f'/proc/{int(out)}').exists() or commands(mark):
        await asyncio.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def test_users_of_two_parents_differ():
    ranges = user_ranges(20)
    if os.geteuid() != 0:
        assert ranges == []
        return
    users = [user for one in ranges for user in one]
    assert len(users) == len(set(users))
    assert len(ranges) >= 8
    assert 0 not in users


@pytest.mark.parametrize(
    ('cgroup', 'mounts', 'expected'),
    [
        (
            '8:pids:/a\n4:memory,hugetlb:/b/c\n1:name=systemd:/\n0::/',
            '1 2 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory,hugetlb\n1 2 0:3 / /sys/fs/cgroup/pids rw shared:1 - cgroup x rw,pids',
            {'pids': '/sys/fs/cgroup/pids/a', 'memory': '/sys/fs/cgroup/memory/b/c', 'hugetlb': '/sys/fs/cgroup/memory/b/c'},
        ),
        ('0::/user.slice/x', '1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate', {'': '/sys/fs/cgroup/user.slice/x'}),
        ('0::/docker/1', '1 2 0:3 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw', {'': '/sys/fs/cgroup'}),
        ('0::/', '1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw', {'': '/sys/fs/cgroup'}),
        ('4:memory:/elsewhere', '1 2 0:3 /docker/1 /sys/fs/cgroup/memory rw - cgroup c rw,memory', {'memory': '/sys/fs/cgroup/memory'}),
        ('', '', {}),
    ],
)
def test_where_control_groups_are(cgroup, mounts, expected):
    assert own_groups(cgroup, mounts) == expected


async def test_the_environment_is_described(sandbox):
    assert sandbox.python_version.startswith('3.')
    version = [
        event
        async for event in (await sandbox.launch('import platform\ndef main(): return platform.python_version()', '{}', Limits())).events()
    ]
    assert json.loads(returned(version)) == sandbox.python_version


@pytest.fixture
def closed(open_folder):
    """A folder that nobody but root may enter, with libraries."""
    folder = open_folder / 'closed'
    (folder / 'base' / 'package').mkdir(parents=True)
    (folder / 'base' / 'package' / '__init__.py').write_text('name = "there"')
    (folder / 'base' / 'other').symlink_to('package')
    folder.chmod(0o700)
    return folder


def plan_of(libraries: Path, work: Path) -> Plan:
    work.mkdir(0o711)
    return Plan(1, True, 1, 0, 1, [54321], [], str(libraries), str(work), os.getpid())


@pytest.mark.skipif(os.getuid() != 0, reason='only root gives runs users of their own')
def test_in_tier_1_libraries_are_given_to_users_who_cannot_reach_them(closed, open_folder):
    given = ground.within_reach(plan_of(closed / 'base', open_folder / 'work')).libraries
    assert given == str(open_folder / 'work' / 'libraries')
    read = subprocess.run(
        ['/bin/cat', f'{given}/other/__init__.py'], user=54321, group=54321, extra_groups=[], capture_output=True, text=True, check=False
    )
    assert (read.stdout, read.stderr) == ('name = "there"', '')
    closed.chmod(0o755)
    assert ground.within_reach(plan_of(closed / 'base', open_folder / 'more')).libraries == f'{closed}/base'
