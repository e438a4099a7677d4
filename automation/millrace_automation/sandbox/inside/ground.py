"""What a parent needs once before it can make children, and what only it can do for a new one."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket

from . import pause, tree
from .plan import HOST, INSIDE_ID, Plan
from .system import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    close_from,
    enter,
    fork,
    prctl,
    unshare,
    write_file,
)


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
    if not plan.uids:
        prctl(PR_SET_DUMPABLE, 1)  # or the children's maps could not be written


def stand_apart() -> None:
    """Goes on as the first process of a process namespace: so all sandboxes end when this process does, however it ends. The one that called
    this stays outside and waits for it.
    """
    unshare(CLONE_NEWPID)
    if pid := fork():
        try:
            close_from(0)
            os.waitpid(pid, 0)
        finally:
            os._exit(0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    unshare(CLONE_NEWUTS)
    socket.sethostname(HOST)
    pause.prepare()


def resize(first: int, disk_mib: int) -> None:
    """The folder of a sandbox, by the pidfd of its first process."""
    own = os.open('/proc/self/ns/mnt', os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(first, CLONE_NEWNS)
        try:
            tree.resize(disk_mib)
        finally:
            enter(own, 0)
    finally:
        os.close(own)


class Namespaces:
    """Of networks and of the System V IPC: an empty one of each for every slot, made once, since the kernel takes long to make and to remove
    them. Nothing of a run outlives its processes in there: it may neither open a socket nor make an IPC object, and has no right over them.
    """

    def __init__(self) -> None:
        self._own = self._open()
        self._of_slots: dict[int, tuple[int, ...]] = {}

    def of(self, number: int) -> tuple[int, ...]:
        if number not in self._of_slots:
            unshare(CLONE_NEWNET | CLONE_NEWIPC)
            self._of_slots[number] = self._open()
            for descriptor in self._own:
                enter(descriptor, 0)
        return self._of_slots[number]

    @staticmethod
    def _open() -> tuple[int, ...]:
        return tuple(os.open(f'/proc/self/ns/{name}', os.O_RDONLY | os.O_CLOEXEC) for name in ('net', 'ipc'))


def map_user(pidfd: int, outside: int | None) -> None:
    """Says who the only user of the child's namespace is outside of it: its own one, or this process's."""
    user, group = (outside, outside) if outside is not None else (os.geteuid(), os.getegid())
    with open(f'/proc/self/fdinfo/{pidfd}') as file:  # /proc may have another number for it than this process
        pid = next(int(line.split()[1]) for line in file if line.startswith('Pid:'))
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


def within_reach(plan: Plan) -> Plan:
    """In tier 1 scripts see the machine's own folders, as users who may not be let into all of them: root's home, for example. The libraries
    are then given to them beside the folders for their work.
    """
    if plan.libraries is None or not plan.uids or _is_open(plan.libraries, plan.uids[0]):
        return plan
    copy = f'{plan.work}/libraries'
    shutil.copytree(plan.libraries, copy, symlinks=True, copy_function=link)
    return dataclasses.replace(plan, libraries=copy)


def _is_open(folder: str, user: int) -> bool:
    if pid := fork():
        return os.waitpid(pid, 0)[1] == 0
    try:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        os._exit(0 if os.access(folder, os.R_OK | os.X_OK) else 1)
    finally:
        os._exit(1)


def link(source: str, target: str) -> None:
    """Of a file, or a copy of it."""
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


def processes_of(user: int) -> int:
    """Threads of the user, anywhere on the machine."""
    count = 0
    for name in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            if os.stat(f'/proc/{name}').st_uid == user:
                count += len(os.listdir(f'/proc/{name}/task'))
    return count
