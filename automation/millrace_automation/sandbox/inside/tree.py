"""The file tree of a tier 2 sandbox.

The parent builds it once, with the rights that it has, in a mount namespace of its own: so it can show a Python installation below a
folder that the script's user may not enter. Each child takes a copy, adds what must be its own, and makes it the root.
"""

import contextlib
import os

from .system import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_to_here,
    protect_device,
    protect_mount,
    write_file,
)

ROOT = '/tmp'  # where the tree is put together, over whatever is there
WORK = '/tmp'  # the script's folder
LIBRARIES = '/site'
SYSTEM = ('/usr', '/lib', '/lib32', '/lib64', '/libx32', '/bin', '/sbin')
DATA = ('/etc/ld.so.cache', '/etc/alternatives', '/etc/mime.types')
_DEVICES = ('null', 'zero', 'full', 'random', 'urandom')
_LINKS = {'fd': '/proc/self/fd', 'stdin': '/proc/self/fd/0', 'stdout': '/proc/self/fd/1', 'stderr': '/proc/self/fd/2', 'shm': WORK}
_FILES = {
    'passwd': 'user:x:1000:1000::/tmp:/bin/sh\n',
    'group': 'user:x:1000:\n',
    'hosts': '127.0.0.1 localhost\n',
    'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
}


def build(python: list[str], libraries: str | None) -> None:
    """Needs a mount namespace of its own. `python` are the folders of the installation outside the system's."""
    mount('', '/', None, MS_REC | MS_PRIVATE)
    sources = {path: path for path in [*SYSTEM, *python] if os.path.exists(path) and not os.path.islink(path)}
    sources |= {path: path for path in (*DATA, *(f'/dev/{name}' for name in _DEVICES))}
    if libraries:
        sources[LIBRARIES] = libraries
    opened = {target: os.open(path, os.O_PATH) for target, path in sources.items() if os.path.exists(path)}
    mount('tmpfs', ROOT, 'tmpfs', MS_NOSUID | MS_NODEV, 'size=1m,mode=0755')
    for folder in ('tmp', 'proc', 'dev', 'etc'):
        os.mkdir(f'{ROOT}/{folder}')
    for target, descriptor in opened.items():
        _bind(descriptor, ROOT + target)
    for path in SYSTEM:
        if os.path.islink(path):
            os.symlink(os.readlink(path), ROOT + path)
    for name, text in _FILES.items():
        os.close(os.open(f'{ROOT}/etc/{name}', os.O_CREAT | os.O_WRONLY, 0o644))
        write_file(f'{ROOT}/etc/{name}', text)
    os.symlink('/usr/share/zoneinfo/Etc/UTC', f'{ROOT}/etc/localtime')
    for name, target in _LINKS.items():
        os.symlink(target, f'{ROOT}/dev/{name}')
    mount('', ROOT, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _bind(descriptor: int, target: str) -> None:
    source = f'/proc/self/fd/{descriptor}'  # the path itself may be hidden by now
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(source, target, None, MS_BIND | MS_REC)
    os.close(descriptor)
    if target.startswith(f'{ROOT}/dev/'):
        protect_device(target)
    else:
        protect_mount(target)


def bind() -> None:
    """In a user namespace of the child's own: a mount of its own, since the copy of the parent's may not become a root."""
    mount(ROOT, ROOT, None, MS_BIND | MS_REC)


def enter(disk_mib: int, user: int) -> None:
    """Runs in the child's own mount and process namespaces. `user` is whose folder it is, as the child sees it now."""
    os.chdir(ROOT)
    mount('tmpfs', 'tmp', 'tmpfs', MS_NOSUID | MS_NODEV, f'size={disk_mib}m,nr_inodes=16k,mode=0700,uid={user},gid={user}')
    _mount_proc()
    pivot_to_here()
    os.chdir(WORK)


def _mount_proc() -> None:
    """Only what is about processes, where the kernel can; nothing where the kernel refuses, as in a container that hides parts of it."""
    for options in ('subset=pid', None):
        with contextlib.suppress(OSError):
            mount('proc', 'proc', 'proc', MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
            return


def resize(disk_mib: int) -> None:
    mount('', WORK, None, MS_REMOUNT | MS_NOSUID | MS_NODEV, f'size={disk_mib}m')
