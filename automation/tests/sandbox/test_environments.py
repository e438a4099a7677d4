"""The environment of libraries: what is pinned, and how it is built."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

AUTOMATION = Path(__file__).resolve().parents[2]
BUILD = [sys.executable, str(AUTOMATION / 'environments/build.py')]
PINNED = ['requirements', 'environments/base']


@pytest.mark.parametrize('name', PINNED)
def test_everything_is_pinned_with_hashes_and_from_nowhere_in_particular(name):
    text = (AUTOMATION / f'{name}.txt').read_text()
    assert not re.search(r'https?:|--index|--find-links|--extra|@ ', text)
    for entry in re.findall(r'^\S.*(?:\n    .*)*', text, re.MULTILINE):
        if not entry.startswith('#'):
            assert re.match(r'[a-z0-9-]+(\[\w+\])?==[\w.]+', entry)
            assert '--hash=sha256:' in entry


@pytest.mark.parametrize('name', PINNED)
def test_what_is_asked_for_is_pinned(name):
    asked = re.findall(r'^([A-Za-z][\w-]*)', (AUTOMATION / f'{name}.in').read_text(), re.MULTILINE)
    pinned = re.findall(r'^([a-z][\w-]*)==', (AUTOMATION / f'{name}.txt').read_text(), re.MULTILINE)
    assert {library.lower() for library in asked} <= set(pinned)


def test_what_is_built_is_left_alone(environments):
    before = (environments / 'base').resolve()
    done = subprocess.run([*BUILD, str(environments)], capture_output=True, text=True, check=True)
    assert done.stdout == ''
    assert (environments / 'base').resolve() == before
    assert os.readlink(environments / 'base') == before.name


def test_a_second_build_waits_for_the_first(environments, tmp_path):
    (tmp_path / 'envs').mkdir()
    (tmp_path / 'envs' / (environments / 'base').resolve().name).mkdir()  # stands for a finished one
    with open(tmp_path / 'envs/.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen([*BUILD, str(tmp_path / 'envs')], stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == 'environment base: waiting for another build\n'
        assert not (tmp_path / 'envs/base').exists()
    assert second.wait(30) == 0
    assert (tmp_path / 'envs/base').is_dir()


def test_a_library_that_is_not_what_was_pinned_is_refused(tmp_path):
    scripts = tmp_path / 'environments'
    scripts.mkdir()
    (scripts / 'build.py').write_text((AUTOMATION / 'environments/build.py').read_text())
    text = (AUTOMATION / 'environments/base.txt').read_text()
    entry = re.search(r'^h11==.*(?:\n    --hash.*)*', text, re.MULTILINE)[0]
    (scripts / 'base.txt').write_text(re.sub(r'sha256:\w+', 'sha256:' + '0' * 64, entry).rstrip('\\') + '\n')
    done = subprocess.run([sys.executable, str(scripts / 'build.py'), str(tmp_path / 'envs')], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip failed' in done.stderr
    assert not (tmp_path / 'envs/base').exists()
