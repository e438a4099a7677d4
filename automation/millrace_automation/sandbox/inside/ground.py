"""What a parent needs once before it can make children, and what only it can do for a new one."""

import contextlib
import os
import shutil

from . import tree
from .init import INSIDE_ID
from .plan import Plan
from .system import CLONE_NEWNS, CLONE_NEWUSER, PR_SET_DUMPABLE, prctl, unshare, write_file


def make_tree(plan: Plan) -> None:
    """Puts the sandboxes' file tree together in a mount namespace of this process's own."""
    if os.geteuid() == 0:
        unshare(CLONE_NEWNS)
    else:  # an ordinary user becomes root of a namespace in which it is the only user
        user, group = os.getuid(), os.getgid()
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
        write_file('/proc/self/setgroups', 'deny')
        write_file('/proc/self/uid_map', f'0 {user} 1')
        write_file('/proc/self/gid_map', f'0 {group} 1')
    tree.build(plan.python, plan.libraries)
    prctl(PR_SET_DUMPABLE, 1)  # or the children's maps could not be written


def map_user(pid: int, outside: int | None) -> None:
    """Says who the only user of the child's namespace is outside of it: its own one, or this process's."""
    user, group = (outside, outside) if outside is not None else (os.geteuid(), os.getegid())
    write_file(f'/proc/{pid}/uid_map', f'{INSIDE_ID} {user} 1')
    write_file(f'/proc/{pid}/gid_map', f'{INSIDE_ID} {group} 1')


def make_work(folder: str) -> None:
    """The folder for those of the runs, in tier 1. Removes what a server that was killed together with its parent has left."""
    os.mkdir(folder, 0o711)
    parent, own = os.path.split(folder)
    prefix = own.split('-sandbox-')[0] + '-sandbox-'
    for entry in os.scandir(parent):
        if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False) and entry.stat().st_uid == os.geteuid():
            server = entry.name.removeprefix(prefix).split('-')[0]
            if server.isdigit() and not os.path.exists(f'/proc/{server}'):
                shutil.rmtree(entry.path, ignore_errors=True)


def processes_of(user: int) -> int:
    """Threads of the user, anywhere on the machine."""
    count = 0
    for name in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            if os.stat(f'/proc/{name}').st_uid == user:
                count += len(os.listdir(f'/proc/{name}/task'))
    return count
