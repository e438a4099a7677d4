"""Escapes, each as an ordinary run: none is allowed. Here in tier 2, by test_ordinary_user.py in both tiers.

Those that are harmless are tried without a sandbox as well, where they must work: a probe that always fails proves nothing.

What is open and documented is not here: the run's own folder, socket pairs between its own processes, its own processes and limits within its limits.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from millrace_automation.sandbox import Limits, Raised, Returned, Sandbox, SandboxSettings

PACKAGE = Path(__file__).resolve().parents[2] / 'millrace_automation'
CANARY = 'yranac-terces-a'  # reversed, else scripts would find their own text
SECRET = CANARY[::-1]
TRACE = 'millrace-escape-trace'

# main() says whether the probe got through. `call` counts as refused only when the filter or the kernel's rights refuse it, not for its arguments.
HEAD = """
import asyncio, ctypes, glob, os, platform, resource, socket, stat, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *arguments):
    number = arm if platform.machine() == 'aarch64' else x86
    result = libc.syscall(number, *[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
    if result == 0 and number in (56, 220, 435):
        os._exit(0)
    return not (result == -1 and ctypes.get_errno() in (1, 38))
def read(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)
def opens(path, flags):
    os.close(os.open(path, flags))
    return True
def probe(server, package, secret, trace):
"""
TAIL = """
def main(server: int, package: str, canary: str, trace: str):
    try:
        return bool(probe(server, package, canary[::-1], trace))
    except (OSError, ValueError, ImportError, subprocess.SubprocessError):
        return False
"""

# Probes that do no harm when nothing holds them: they work without a sandbox.
HARMLESS = {
    'read the password hashes': "return read('/etc/shadow')",
    'read them through its own root': "return read('/proc/self/root/etc/shadow')",
    'read them through the root of the server': "return read(f'/proc/{server}/root/etc/shadow')",
    'read them by a path that climbs': "return read('../' * 40 + 'etc/shadow')",
    'read them by a symbolic link': "os.symlink('/etc/shadow', 'link'); return read('link')",
    'read them by another program': "return subprocess.run(['cat', '/etc/shadow'], capture_output=True).stdout",
    'read them by a shell': "return not os.system('cat /etc/shadow > copy 2> errors')",
    'read them by a thread': "import concurrent.futures as f\nreturn f.ThreadPoolExecutor(1).submit(read, '/etc/shadow').result()",
    'read them by a forked process': "child = os.fork()\nif child == 0:\n    try: read('/etc/shadow')\n    except OSError: os._exit(1)\n"
    '    os._exit(0)\nreturn os.waitpid(child, 0)[1] == 0',
    'list the root folder': "return os.listdir('/')",
    'list the home of root': "return os.listdir('/root') or True",
    'list the homes': "return os.listdir('/home') or True",
    'list the logs': "return os.listdir('/var/log') or True",
    'read the code of the server': "return read(f'{package}/__init__.py')",
    'import the code of the server': 'sys.path.insert(0, os.path.dirname(package))\nimport millrace_automation.sandbox\nreturn True',
    'read the environment of the server': "return read(f'/proc/{server}/environ')",
    'find a secret in an environment': "for path in glob.glob('/proc/[0-9]*/environ'):\n"
    '    try:\n        if secret.encode() in read(path): return True\n    except OSError: pass\nreturn False',
    'read the memory map of the server': "return read(f'/proc/{server}/maps')",
    'list the descriptors of the server': "return os.listdir(f'/proc/{server}/fd')",
    'read the command line of the server': "return read(f'/proc/{server}/cmdline')",
    'see other processes': "return len([name for name in os.listdir('/proc') if name.isdigit()]) > 4",
    'signal the server': 'os.kill(server, 0); return True',
    'read the limits of the server': 'return resource.prlimit(server, resource.RLIMIT_NOFILE)',
    'see the control groups': "return os.listdir('/sys/fs/cgroup') or True",
    'read the mounts of the machine': "return b'/sys/fs/cgroup' in read('/proc/self/mountinfo')",
    'open a socket to the internet': 'socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(); return True',
    'open a socket of datagrams': 'socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(); return True',
    'open a socket of IPv6': 'socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close(); return True',
    'open a local socket': 'socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(); return True',
    'open a socket to the kernel': 'socket.socket(16, socket.SOCK_RAW, 0).close(); return True',
    'write to the shared folder for temporary files': "open(f'/var/tmp/{trace}', 'w').close(); return True",
}

# Probes that nobody should try where nothing holds them, or that machines refuse for reasons of their own.
HARMFUL = {
    'read the password hashes through the root of process 1': "return read('/proc/1/root/etc/shadow')",
    'read the environment of process 1': "return read('/proc/1/environ')",
    'find a secret in a descriptor': 'for number in range(4, 1024):\n'
    '    try:\n        if stat.S_ISREG(os.fstat(number).st_mode) and secret.encode() in os.pread(number, 4096, 0): return True\n'
    '    except OSError: pass\nreturn False',
    'find a secret in its own environment': 'return any(secret in value for value in os.environ.values())',
    'inherit a descriptor': 'for number in range(4, 4096):\n    try: os.fstat(number); return True\n    except OSError: pass\nreturn False',
    'change the limits of the server': 'resource.prlimit(server, resource.RLIMIT_NPROC, resource.prlimit(server, resource.RLIMIT_NPROC)); return True',
    'slow the server down': 'os.setpriority(os.PRIO_PROCESS, server, os.getpriority(os.PRIO_PROCESS, server)); return True',
    'slow all of its user down': 'os.setpriority(os.PRIO_USER, os.getuid(), 19); return True',
    'choose the processors of the server': 'os.sched_setaffinity(server, os.sched_getaffinity(server)); return True',
    'choose the scheduler of the server': 'os.sched_setscheduler(server, os.SCHED_IDLE, os.sched_param(0)); return True',
    'link a secret into its folder': "os.link('/etc/shadow', 'hard'); return True",
    'write the memory of the server': "return opens(f'/proc/{server}/mem', os.O_RDWR)",
    'change how crashes are handled': "return opens('/proc/sys/kernel/core_pattern', os.O_WRONLY)",
    'ask the kernel for something by hand': "return opens('/proc/sysrq-trigger', os.O_WRONLY)",
    'read the memory of the kernel': "return opens('/proc/kcore', os.O_RDONLY)",
    'read the memory of the machine': "return opens('/dev/mem', os.O_RDONLY)",
    'use a virtual machine': "return opens('/dev/kvm', os.O_RDWR)",
    'read the messages of the kernel': "return opens('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)",
    'change a program': "return opens('/usr/bin/env', os.O_WRONLY)",
    'leave a file in the system': "open(f'/etc/{trace}', 'w').close(); return True",
    'leave a library': "open(f'/usr/lib/{trace}', 'w').close(); return True",
    'make a device': "os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(8, 0)); return True",
    'become root': "os.setresuid(0, 0, 0); return read('/etc/shadow')",
    'gain rights by a program': 'return libc.prctl(39, 0, 0, 0, 0) != 1',
    'allow itself more memory': 'resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return True',
    'allow itself more files': 'resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 16, 1 << 16)); return True',
    'open a raw socket': 'socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(); return True',
    'open a socket of packets': 'socket.socket(17, socket.SOCK_RAW, 768).close(); return True',
    'open a socket to the host of a virtual machine': 'socket.socket(40, socket.SOCK_STREAM).close(); return True',
    'open a socket of the cryptography': 'socket.socket(38, socket.SOCK_SEQPACKET).close(); return True',
    'reach the metadata of a cloud': "socket.create_connection(('169.254.169.254', 80), 1).close(); return True",
    'mount a file system': "return call(165, 40, b'none', b'.', b'tmpfs', 0, None)",
    'unmount': "return call(166, 39, b'/nowhere', 0)",
    'change the root': "return call(161, 51, b'.')",
    'swap the root': "return call(155, 41, b'.', b'.')",
    'make a user namespace': 'return call(272, 97, 0x10000000)',
    'make a network namespace': 'return call(272, 97, 0x40000000)',
    'fork into a user namespace': 'return call(56, 220, 0x10000011, 0, 0, 0, 0)',
    'fork in ways that the filter cannot see': 'return call(435, 435, None, 0)',
    'enter a namespace': 'return call(308, 268, 0, 0)',
    'open a tree of mounts': "return call(428, 428, -100, b'/', 0)",
    'open a file system': "return call(430, 430, b'tmpfs', 0)",
    'trace a process': 'return call(101, 117, 0, 0, 0, 0)',
    'read the memory of a process': 'return call(310, 270, server, None, 0, None, 0, 0)',
    'take a descriptor of a process': 'return call(438, 438, 0, 0, 0)',
    'load a program into the kernel': 'return call(321, 280, 0, None, 0)',
    'load a module': "return call(313, 273, 0, b'', 0)",
    'load another kernel': 'return call(246, 104, 0, 0, None, 0)',
    'restart the machine': 'return call(169, 142, 0, 0, 0, None)',
    'swap memory to a file': "return call(167, 224, b'/nowhere', 0)",
    'account for processes': "return call(163, 89, b'/nowhere')",
    'set quotas': "return call(179, 60, 0, b'/nowhere', 0, None)",
    'watch the kernel': 'return call(298, 241, None, 0, -1, -1, 0)',
    'handle page faults': 'return call(323, 282, 0)',
    'use io_uring': 'return call(425, 425, 1, bytes(120))',
    'use the key ring': 'return call(250, 219, 0, -3, 0)',
    'add a key': "return call(248, 217, b'user', b'probe', b'x', 1, -3)",
    'open a file by its handle': 'return call(304, 265, -100, None, 0)',
    'set the clock': 'return call(227, 112, 0, None)',
    'set the host name': "return call(170, 161, b'probe', 5)",
    'read the log of the kernel': 'return call(103, 116, 10, None, 0)',
    'run a program that is no file': "return call(319, 279, b'probe', 0)",
    'take memory that outlives it': 'return call(29, 194, 0, 4096, 0o1600)',
}
PROBES = HARMLESS | HARMFUL


def script(body: str) -> str:
    return HEAD + textwrap.indent(body, '    ') + TAIL


def given(server: int) -> dict[str, object]:
    return {'server': server, 'package': str(PACKAGE), 'canary': CANARY, 'trace': TRACE}


@pytest.fixture(scope='module')
async def strong(environments):
    """A sandbox in a process with secrets in its environment and in a descriptor that would be inherited."""
    os.environ['A_SECRET_OF_THE_SERVER'] = SECRET
    held = os.open('/tmp', os.O_TMPFILE | os.O_RDWR)
    os.write(held, SECRET.encode())
    os.set_inheritable(held, True)
    tier = int(os.environ.get('MILLRACE_TEST_TIER', '2'))
    sandbox = await Sandbox.start(SandboxSettings(1, environments, slots=8, prepared=4, force_tier_at_most=tier))
    assert sandbox.tier == tier, sandbox.faults
    yield sandbox
    await sandbox.stop()
    os.close(held)
    del os.environ['A_SECRET_OF_THE_SERVER']


async def is_allowed(sandbox: Sandbox, body: str) -> bool:
    process = await sandbox.launch(script(body), json.dumps(given(os.getpid())), Limits())
    events = [event async for event in process.events()]
    verdict = next((event for event in events if isinstance(event, Returned | Raised)), None)
    assert isinstance(verdict, Returned), (verdict, events)
    return json.loads(verdict.output_json)


@pytest.mark.parametrize('name', PROBES)
async def test_no_escape(strong, name):
    assert not await is_allowed(strong, PROBES[name])
    traces = [path for folder in ('/tmp', '/var/tmp', '/etc', '/usr/lib') if (path := Path(folder) / TRACE).exists()]
    assert not traces


def test_there_are_enough():
    assert len(PROBES) >= 60


async def test_a_probe_that_gets_through_is_seen(strong):
    assert await is_allowed(strong, "return open('own', 'w').write('x')")
    assert await is_allowed(strong, 'a, b = socket.socketpair()\nreturn True')


@pytest.mark.skipif(os.geteuid() != 0, reason='an ordinary user may not do most of it without a sandbox either')
@pytest.mark.parametrize('name', HARMLESS)
def test_it_would_work_without_a_sandbox(name, tmp_path):
    text = script(HARMLESS[name]) + '\nimport json\nprint(json.dumps(main(**json.loads(sys.argv[1]))))'
    command = [sys.executable, '-c', text, json.dumps(given(os.getpid()))]
    environment = {**os.environ, 'A_SECRET_OF_THE_SERVER': SECRET}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    (Path('/var/tmp') / TRACE).unlink(missing_ok=True)
    assert done.stdout.strip() == 'true', done.stderr
