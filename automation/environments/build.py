"""Installs an environment of libraries for scripts: `python build.py FOLDER [NAME]`, NAME is `base` unless given.

The libraries come from NAME.txt beside this file: pinned, with hashes, wheels only. They go to FOLDER/<hash of what decides them>, and
FOLDER/NAME becomes a link to it. What is there already is left alone; whoever comes second waits for the first. Run it with the Python
that scripts run on.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
_DIGITS = 16


def build(folder: Path, name: str = 'base') -> Path:
    """Returns the folder that the link leads to."""
    pinned = HERE / f'{name}.txt'
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _key(pinned)
    with open(folder / '.lock', 'w') as lock:
        _wait_for(lock, name)
        if not target.is_dir():
            _install(pinned, name, target)
        _link(folder / name, target.name)
    return target


def _key(pinned: Path) -> str:
    """Of the libraries and of what their wheels are chosen by."""
    decides = (
        pinned.read_text(),
        sysconfig.get_config_var('SOABI') or '',
        platform.machine(),
        '.'.join(platform.python_version_tuple()[:2]),
    )
    return hashlib.sha256('\0'.join(decides).encode()).hexdigest()[:_DIGITS]


def _wait_for(lock, name: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f'environment {name}: waiting for another build', flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _install(pinned: Path, name: str, target: Path) -> None:
    count = len({line.split('==')[0] for line in pinned.read_text().splitlines() if '==' in line})
    print(f'environment {name}: installing {count} libraries', flush=True)
    begin = time.monotonic()
    unfinished = target.with_name(f'{target.name}.unfinished')
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a build that was interrupted
    pip = [sys.executable, '-m', 'pip', 'install', '--require-hashes', '--only-binary=:all:', '--no-deps', '--disable-pip-version-check']
    with subprocess.Popen(
        [*pip, '--progress-bar', 'off', '--target', str(unfinished), '-r', str(pinned)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith('Collecting '):
                print(f'  {line.split()[1]}', flush=True)
    if process.returncode:
        raise SystemExit(f'environment {name}: pip failed with exit code {process.returncode}')
    for path in (unfinished, *unfinished.rglob('*')):
        path.chmod(0o755 if path.is_dir() else 0o644)  # scripts run as users of their own
    unfinished.rename(target)
    print(f'environment {name}: ready after {time.monotonic() - begin:.1f} s', flush=True)


def _link(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        return
    new = link.with_name(f'.{link.name}.new')
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


if __name__ == '__main__':
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]), *sys.argv[2:])
