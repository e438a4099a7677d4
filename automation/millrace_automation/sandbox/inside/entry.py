"""The process of a fresh run in tier 2 that has no keeper: it puts itself into the namespaces that its first process opened, and locks itself in.

Until then it is root, with the parent's rights, and runs nothing but this package; afterwards nothing of that can be had back. The parent
hears R (ready) or F (failed, text) on the status socket, and ends the run by its first process.
"""

import os
import traceback
from typing import NoReturn

from . import execution, rlimits, script, tree
from .channel import Channel
from .plan import DEFAULT_LIMITS, INSIDE_ID, NICE, PARENT_NICE, ChildPlan
from .system import (
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    drop_bounding_capabilities,
    enter,
    prctl,
    unblock_signals,
    unshare,
    write_file,
)

_STATUS = 4


def run(
    plan: ChildPlan, shared: script.Shared, descriptors: tuple[int, int, int, int], first: int, namespaces: tuple[int, ...]
) -> NoReturn:
    """`descriptors` as for init; `first` is the pidfd of the first process, `namespaces` are those of the slot."""
    code = 1
    try:
        try:
            for entrance in plan.entrances:
                os.write(entrance, b'0')
            for descriptor in (first, *namespaces):
                enter(descriptor, CLONE_NEWNS if descriptor == first else 0)
            shared.take(descriptors)
            _enter(plan)
            shared.channel.own()
            script.lock_in(plan, shared)
        except BaseException:
            os.write(_STATUS, b'F' + traceback.format_exc().encode(errors='replace')[-8000:])
            os._exit(1)
        os.write(_STATUS, b'R')
        os.close(_STATUS)
        code = _serve(plan, shared.channel)
    finally:
        os._exit(code & 255)


def _enter(plan: ChildPlan) -> None:
    os.umask(0o077)
    os.nice(NICE - PARENT_NICE)
    own = os.open('/proc/self', os.O_PATH | os.O_CLOEXEC)  # the machine's: the sandbox's may have been refused
    tree.enter(DEFAULT_LIMITS['disk_mib'], plan.uid)
    _become(plan.uid, own)
    os.close(own)
    drop_bounding_capabilities()
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def _become(user: int, own: int) -> None:
    """The only user of a namespace, who has no right over the other namespaces: those belong to the parent."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    prctl(PR_SET_DUMPABLE, 1)  # or it could not write its own maps
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWCGROUP)
    except OSError:
        unshare(CLONE_NEWUSER)
    for name, text in (('setgroups', 'deny'), ('uid_map', f'{INSIDE_ID} {user} 1'), ('gid_map', f'{INSIDE_ID} {user} 1')):
        write_file(name, text, own)


def _serve(plan: ChildPlan, channel: Channel) -> int:
    try:
        unblock_signals()
        request = channel.receive_alone()  # nobody is there who could keep this process for another run
        limits = request['limits']
        rlimits.set_for_run(limits, plan.process_slots(limits['processes']), False)
        return execution.run(request, channel)
    except KeyboardInterrupt as fault:  # asked to stop while it had not begun, or had ended
        return execution.report_raised(channel, fault)
