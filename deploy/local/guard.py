"""Runs a command that cannot outlive its parent: `guard.py <parent's pid> <command> <argument>...`.

The kernel kills the command when the parent ends, however that ends, and never writes its memory to a file, which may hold secrets. The
command keeps this process's id.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1

ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):  # it ended before the kernel was told
    sys.exit('the launcher has ended')
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so in the command
    signal.signal(ignored, signal.SIG_DFL)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f'{sys.argv[2]}: {error.strerror}')
