"""The same tests as ordinary users, in both tiers side by side: without the right to choose a user or to make control groups."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace_automation.sandbox.inside import landlock
from millrace_automation.sandbox.inside.ground import link

AUTOMATION = Path(__file__).parents[2]
USERS = {2: '65534', 1: '65533'}  # the kernel counts processes by user
TESTS = [
    *('test_script.py', 'test_shut_in.py', 'test_tier.py', 'test_escape.py'),
    'test_reuse.py::test_what_a_run_changes_is_put_back',
    'test_reuse.py::test_what_cannot_be_undone_ends_the_process',
    'test_reuse.py::test_a_run_that_is_killed_ends_with_its_process',
    'test_network.py::test_reads_by',
    'test_network.py::test_what_a_script_does_to_its_gate_harms_only_itself',
]
REFUSAL = ['test_tier.py::test_where_signals_reach_the_server_an_ordinary_user_has_no_tier_1']


def user(tier: int = 2) -> list[str]:
    """Before a command: as an ordinary user. `env`, since setpriv itself still has root's rights."""
    return ['setpriv', '--reuid', USERS[tier], '--regid', USERS[tier], '--clear-groups', 'env']


def usable_python() -> str | None:
    """One of the same version that everybody may run."""
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    for path in (os.path.realpath(sys.executable), f'/usr/bin/{version}', f'/usr/local/bin/{version}'):
        if (
            os.path.exists(path)
            and subprocess.run([*user(), path, '-c', 'import ctypes'], capture_output=True, check=False).returncode == 0
        ):
            return path
    return None


def may(*test: str) -> bool:
    return subprocess.run([*user(), 'test', *test], check=False).returncode == 0


def within_reach(folder: Path, others: Path) -> Path:
    """The folder, or the same somewhere else when it lies where nobody but root is let in, such as below root's home."""
    if may('-r', str(folder)):
        return folder
    shutil.copytree(folder, others / folder.name, symlinks=True, copy_function=link, ignore=shutil.ignore_patterns('__pycache__'))
    return others / folder.name


@pytest.fixture(scope='module')
def runs(environments, open_folder) -> Iterator[dict[int, subprocess.Popen]]:
    python = usable_python()
    if python is None:
        pytest.skip('no Python of this version that everybody may run')
    code, packages, libraries = (
        within_reach(wanted, open_folder) for wanted in (AUTOMATION, Path(sysconfig.get_path('purelib')), environments.resolve())
    )
    variables = {
        'PATH': os.environ['PATH'],
        'PYTHONPATH': f'{code}:{packages}',
        'PYTHONDONTWRITEBYTECODE': '1',
        'MILLRACE_TEST_ENVIRONMENTS': str(libraries),
    }

    def files(tier: int) -> list[str]:
        has_tier = tier == 2 or landlock.version() >= landlock.SCOPES_SINCE
        return [str(code / 'tests' / 'sandbox' / name) for name in (TESTS if has_tier else REFUSAL)]

    options = ['-q', '-p', 'no:cacheprovider', '-c', str(code / 'pyproject.toml'), '--rootdir', str(code)]
    started = {
        tier: subprocess.Popen(
            [*user(tier), python, '-m', 'pytest', *options, *files(tier)],
            env=variables | {'MILLRACE_TEST_TIER': str(tier)},
            cwd='/',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for tier in USERS
    }
    yield started
    for one in started.values():
        one.kill()
        one.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason='is an ordinary user already')
@pytest.mark.skipif(not shutil.which('setpriv'), reason='util-linux is not installed')
@pytest.mark.parametrize('tier', USERS)
def test_as_an_ordinary_user(runs, tier):
    said, _ = runs[tier].communicate(timeout=300)
    assert runs[tier].returncode == 0, said[-8000:]
    assert ' passed' in said
