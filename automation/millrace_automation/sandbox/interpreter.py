"""The Python that scripts run on, and the libraries that are chosen by it."""

import os
import sys
import sysconfig
from pathlib import Path

from .inside.tree import SYSTEM

PLATFORM = sysconfig.get_config_var('SOABI') or 'unknown'
"""What wheels are chosen by, such as `cpython-311-x86_64-linux-gnu`."""


def python_folders() -> list[str]:
    """Where this Python lies, as far as that is outside the system's folders."""
    found = {os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix, sysconfig.get_path('stdlib'))}
    outside = [
        path for path in sorted(found) if not path.startswith(tuple(f'{system}/' for system in SYSTEM)) and path not in (*SYSTEM, '/')
    ]
    return [path for path in outside if not any(path.startswith(f'{other}/') for other in outside)]


def identity_of(folder: Path | None) -> object:
    """Another one for a folder that was made again under the same name."""
    if folder is None:
        return None
    found = folder.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def packages(folder: Path) -> list[str]:
    """`name==version` of what is installed there, by the names of its metadata folders."""
    names = (path.name.removesuffix('.dist-info') for path in folder.glob('*.dist-info'))
    return sorted('=='.join(name.rsplit('-', 1)).replace('_', '-').lower() for name in names)
