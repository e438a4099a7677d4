"""A program that becomes another one, shut in: `python -I shut_in.py PLAN PROGRAM ARGUMENT...`, PLAN is JSON.

It reads and runs `read`, writes below `write`, and has no network unless `network` says so. It ends with the process that started it.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from millrace_automation.sandbox.inside import landlock
from millrace_automation.sandbox.inside.system import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    PR_SET_PDEATHSIG,
    drop_bounding_capabilities,
    drop_capabilities,
    prctl,
    unshare,
)

_PR_SET_NO_NEW_PRIVS = 38
_FILE_BYTES = 1 << 30
_CPU_SECONDS = 1800


def main(plan: dict, command: list[str]) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not plan['network']:
        _leave_network()
    for kind, most in ((resource.RLIMIT_FSIZE, _FILE_BYTES), (resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))
    if os.geteuid() == 0:
        drop_bounding_capabilities()
        drop_capabilities()
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if landlock.version() > 0:
        allowed = [(path, landlock.RUN) for path in plan['read']] + [('/dev', landlock.DEVICE)]
        rules = landlock.Rules([(path, landlock.ALL) for path in plan['write']] + allowed)
        landlock.enter(rules.ruleset(has_network=plan['network']))
    else:
        print('note: this kernel has no Landlock: the step is not kept from other files', flush=True)
    os.execv(command[0], command)


def _leave_network() -> None:
    """Into an empty network; as an ordinary user, in a user namespace of its own."""
    for flags in (CLONE_NEWNET, CLONE_NEWNET | CLONE_NEWUSER):
        with contextlib.suppress(OSError):
            unshare(flags)
            return
    print('note: this machine gives no network namespace: the step keeps the network', flush=True)


if __name__ == '__main__':
    main(json.loads(sys.argv[1]), sys.argv[2:])
