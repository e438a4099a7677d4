"""Escapes, each as an ordinary run: none is allowed. Here in tier 2, by test_ordinary_user.py in both tiers.

Those that are harmless are tried without a sandbox as well, where they must work: a probe that always fails proves nothing.

What is open and documented is not here: the run's own folder, socket pairs between its own processes, its own processes and limits within its limits.
"""

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from millrace_automation.sandbox import Limits, Raised, Returned, Sandbox, SandboxSettings
from millrace_automation.server.egress_gate import Gate
from millrace_automation.server.egress_rules import Policy, networks

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
    'make a pair of sockets that send to any path': 'socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); return True',
    'make a raw pair of sockets': 'socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW); return True',
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

# Probes of runs that reach the network by a gate. Its rules name api.example.com, which leads to a server of the test, and names that lead to
# addresses where nobody may be led. `api()` is a connection that is allowed, `at` where somebody listens whom no rule names.
NETWORK_HEAD = """
import struct
def api():
    return socket.create_connection(('api.example.com', port), 20)
def reach(host, to=None):
    try:
        socket.create_connection((host, to or port), 20).close()
        return True
    except OSError:
        return False
at = struct.pack('!HHIQ', 2 << 8, port, 0x7f000001, 0)
def sends(x86, arm, *arguments):
    number = arm if platform.machine() == 'aarch64' else x86
    return libc.syscall(number, *[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]) != -1
"""
NETWORK = {
    'reach the metadata of a cloud': "return reach('169.254.169.254', 80)",
    'reach it by a name that a rule names': "return reach('metadata.example.com', 80)",
    'reach the machine': "return reach('127.0.0.1') or reach('::1')",
    'reach the machine as localhost': "return reach('localhost')",
    'reach the machine by a name that a rule names': "return reach('inner.example.com') or reach('inner6.example.com')",
    'reach the machine by an address within another': "return reach('mapped.example.com') or reach('::ffff:127.0.0.1')",
    'reach the network of the machine': "return reach('private.example.com') or reach('10.0.0.1') or reach('192.168.0.1')",
    'reach the machine by one address among others': "return reach('mixed.example.com')",
    'reach the machine by a name that changes': "return [reach('changing.example.com') for _ in range(3)].count(True)",
    'reach another host': "return reach('other.example.com') or reach('example.com') or reach('api.example.com.other.net')",
    'reach another port': "return reach('api.example.com', other_port)",
    'reach the machine however its address is written': "return [host for host in ('2130706433', '0x7f000001', '0x7f.1', '127.1', '0177.0.0.1',"
    "\n    '017700000001', '0', '[::1]', '127.0.0.1.', '\\uff11\\uff12\\uff17.0.0.1', '127\\u30020\\u30020\\u30021') if reach(host)]",
    'hide a host behind the one that is allowed': "return [host for host in ('api.example.com@127.0.0.1', 'api.example.com\\0.other.net',"
    "\n    'api.example.com#127.0.0.1', 'api.example.com 127.0.0.1', '127.0.0.1\\r\\napi.example.com', '*.example.com') if reach(host)]",
    'open a socket of the internet by the kernel': 'return call(41, 198, 2, 1, 0) or call(41, 198, 10, 1, 0)',
    'open a socket of datagrams by the kernel': 'return call(41, 198, 2, 2, 0)',
    'open a raw socket by the kernel': 'return call(41, 198, 2, 3, 1)',
    'open a local socket by the kernel': 'return call(41, 198, 1, 1, 0)',
    'connect what it was given to somewhere else': 'with api() as one: return call(42, 203, one.fileno(), at, 16)',
    'send from what it was given to somewhere else': 'with api() as one: return sends(44, 206, one.fileno(), b"x", 1, 0, at, 16)',
    'bind what it was given': 'with api() as one: return call(49, 200, one.fileno(), at, 16)',
    'listen to what it was given': 'with api() as one: return call(50, 201, one.fileno(), 1)',
    'accept by what it was given': 'with api() as one: return call(43, 202, one.fileno(), None, None)',
    'be given a socket of the internet': 'with api() as one: return one.getsockopt(socket.SOL_SOCKET, 39) != socket.AF_UNIX',
    'listen for others': "one = socket.socket(); one.bind(('', 0)); one.listen(); return True",
    'send datagrams': "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port)); return True",
    'resolve names by itself': "return socket.gethostbyname('api.example.com') or True",
    'reach out by another program': """text = 'import socket; socket.create_connection(("api.example.com", %d))' % port
return subprocess.run([sys.executable or 'python3', '-c', text], capture_output=True).returncode == 0""",
}


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


async def is_allowed(sandbox: Sandbox, body: str, network: socket.socket | None = None) -> bool:
    process = await sandbox.launch(script(body), json.dumps(given(os.getpid())), Limits(), network=network)
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


@pytest.fixture
async def reaching(strong, monkeypatch) -> AsyncIterator[Callable[[str], Awaitable[tuple[bool, list[str]]]]]:
    """Runs a probe with a gate. Says whether it got through, and which addresses were dialled; those outside this machine never are."""
    changing = itertools.cycle(['93.184.215.14', '127.0.0.1'])
    names = {
        'api.example.com': ['127.0.0.5'],
        'metadata.example.com': ['169.254.169.254'],
        'inner.example.com': ['127.0.0.1'],
        'inner6.example.com': ['::1'],
        'mapped.example.com': ['::ffff:127.0.0.1'],
        'private.example.com': ['10.0.0.1'],
        'mixed.example.com': ['93.184.215.14', '127.0.0.1'],
    }
    dialled: list[str] = []
    dial = Gate._dial

    async def resolve(name: str, port: int) -> list[str]:
        return [next(changing)] if name == 'changing.example.com' else names.get(name, ['127.0.0.5'])

    async def watched(self, address: str, port: int) -> socket.socket:
        dialled.append(address)
        if not address.startswith('127.'):
            raise ConnectionRefusedError(111, 'Connection refused')
        return await dial(self, address, port)

    monkeypatch.setattr(Gate, '_dial', watched)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), '0.0.0.0', 0)
    second = await asyncio.start_server(lambda reader, writer: writer.close(), '0.0.0.0', 0)
    port, other_port = (one.sockets[0].getsockname()[1] for one in (server, second))

    async def reaching(body: str) -> tuple[bool, list[str]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rules = Policy(tuple((name, frozenset((port, 80))) for name in (*names, 'changing.example.com')))
        gate = Gate(ours, rules, networks(['127.0.0.5/32']), lambda level, text: None, resolve)
        try:
            with theirs:
                through = await is_allowed(strong, f'port, other_port = {port}, {other_port}{NETWORK_HEAD}{body}', theirs)
            return through, dialled
        finally:
            await gate.close()

    yield reaching
    server.close()
    second.close()


@pytest.mark.parametrize('name', NETWORK)
async def test_no_escape_by_the_network(reaching, name):
    through, dialled = await reaching(NETWORK[name])
    assert not through
    assert set(dialled) <= {'127.0.0.5', '93.184.215.14'}


async def test_what_the_network_is_for_gets_through(reaching):
    assert await reaching("return reach('api.example.com')") == (True, ['127.0.0.5'])


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
