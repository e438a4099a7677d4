"""Scripts that reach the network through their gate: by the libraries as they are, to the hosts that rules name, and nowhere else.

Names are made up here and lead to servers of the test, which count who comes.
"""

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from millrace_automation.sandbox import Limits, Sandbox
from millrace_automation.server.egress_gate import Gate
from millrace_automation.server.egress_rules import Policy, networks

PATIENCE = 30.0
LIMITS = Limits(cpu_seconds=20)
LOOPBACK = ['127.0.0.0/8', '::1/128']


@dataclass
class Outside:
    """What can be reached: an HTTP server, the same by TLS, one that says nothing, one that talks without end."""

    ports: dict[str, int]
    authority: str
    came: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)

    async def resolve(self, name: str, port: int) -> list[str]:
        self.looked_up.append(name)
        if name not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        found = self.names[name]
        return [found.pop(0)] if name.startswith('changing') and len(found) > 1 else found


def certificate(folder: Path) -> tuple[Path, str]:
    """A key with its certificate for *.example.com, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'test')])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName('*.example.com')]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / 'server.pem'
    path.write_bytes(private + text)
    return path, text.decode()


@pytest.fixture(scope='module')
async def outside(tmp_path_factory) -> AsyncIterator[Outside]:
    path, authority = certificate(tmp_path_factory.mktemp('tls'))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    found = Outside({}, authority)

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.came.append('http')
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b'\r\n\r\n')).decode()
                length = next((int(line.split(':')[1]) for line in head.lower().splitlines() if line.startswith('content-length')), 0)
                body = await reader.readexactly(length)
                answer = json.dumps({'line': head.splitlines()[0], 'body': body.decode()}).encode()
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b' % (len(answer), answer))
                await writer.drain()
        writer.close()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.came.append('flood')
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        writer.close()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.came.append('silent')
        await reader.read()
        writer.close()

    async with contextlib.AsyncExitStack() as open_ones:
        for name, answer, tls in (('http', http, None), ('tls', http, context), ('flood', flood, None), ('silent', silent, None)):
            server = await asyncio.start_server(answer, '127.0.0.1', 0, ssl=tls)
            await open_ones.enter_async_context(server)
            found.ports[name] = server.sockets[0].getsockname()[1]
        yield found


@dataclass
class Run:
    outcome: Any
    told: list[tuple[str, str]]
    gate: Gate


@pytest.fixture
def reach(sandbox: Sandbox, outside: Outside, outcome) -> Callable[..., Any]:
    outside.came.clear()
    outside.looked_up.clear()
    outside.names = {'api.example.com': ['127.0.0.1'], 'a.sub.example.com': ['127.0.0.1']}

    async def reach(
        source: str, given: dict[str, Any] | None = None, inner: list[str] = LOOPBACK, house: Sandbox = sandbox, **policy: Any
    ) -> Run:
        hosts = policy.pop('hosts', ('api.example.com', '*.sub.example.com'))
        ports = frozenset(policy.pop('ports', outside.ports.values()))
        options = policy.pop('options', {})
        told: list[tuple[str, str]] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rules = Policy(tuple((host, ports) for host in hosts), **policy)
        gate = Gate(ours, rules, networks(inner), lambda level, text: told.append((level, text)), outside.resolve)
        try:
            async with asyncio.timeout(PATIENCE):
                values = {'ports': outside.ports, 'ca': outside.authority} | (given or {})
                process = await house.launch(source, json.dumps(values), LIMITS, network=theirs, **options)
                done = await outcome().read(process)
        finally:
            theirs.close()
            await gate.close()
        return Run(done, told, gate)

    return reach


WAYS = {
    'urllib': 'import urllib.request\nread = lambda url, context: json.load(urllib.request.urlopen(url, timeout=10, context=context))',
    'http.client': 'import http.client, urllib.parse\ndef read(url, context):\n    to = urllib.parse.urlsplit(url)\n'
    '    c = http.client.HTTPSConnection(to.netloc, context=context) if context else http.client.HTTPConnection(to.netloc)\n'
    "    c.request('GET', to.path)\n    return json.load(c.getresponse())",
    'requests': "import requests\ndef read(url, context):\n    if context: open('ca.pem', 'w').write(CA)\n"
    "    with requests.Session() as session:\n        return session.get(url, timeout=10, verify='ca.pem' if context else True).json()",
    'httpx': 'import httpx\ndef read(url, context):\n    with httpx.Client(verify=context or True) as client:\n        return client.get(url).json()',
    'httpx with asyncio': 'import httpx\nasync def _read(url, context):\n    async with httpx.AsyncClient(verify=context or True) as client:\n'
    '        both = await asyncio.gather(client.get(url), client.get(url))\n        return both[1].json()\n'
    'read = lambda url, context: asyncio.run(_read(url, context))',
    'asyncio': 'import urllib.parse\nasync def _read(url, context):\n    to = urllib.parse.urlsplit(url)\n'
    '    reader, writer = await asyncio.open_connection(to.hostname, to.port, ssl=context)\n'
    "    writer.write(f'GET {to.path} HTTP/1.1\\r\\n\\r\\n'.encode())\n    head = await reader.readuntil(b'\\r\\n\\r\\n')\n"
    "    length = int(head.split(b'Content-Length: ')[1].split(b'\\r')[0])\n    body = await reader.readexactly(length)\n    writer.close()\n"
    '    return json.loads(body)\nread = lambda url, context: asyncio.run(_read(url, context))',
    'a thread': 'import urllib.request, concurrent.futures\ndef read(url, context):\n    with concurrent.futures.ThreadPoolExecutor(4) as pool:\n'
    '        many = [pool.submit(lambda: json.load(urllib.request.urlopen(url, context=context))) for _ in range(4)]\n'
    '        return many[-1].result()',
    'a process that it forks': 'import urllib.request, multiprocessing\ndef _read(url, ca, into):\n'
    '    context = ssl.create_default_context(cadata=ca) if ca else None\n    into.send(json.load(urllib.request.urlopen(url, context=context)))\n'
    "def read(url, context):\n    fork = multiprocessing.get_context('fork')\n    ours, into = fork.Pipe(duplex=False)\n"
    '    child = fork.Process(target=_read, args=(url, CA if context else None, into))\n    child.start()\n'
    '    found = ours.recv()\n    child.join()\n    return found',
}
READS = """
import asyncio, json, ssl
{way}
def main(ports: dict, ca: str, host: str = 'api.example.com'):
    global CA
    CA = ca
    plain = read(f"http://{{host}}:{{ports['http']}}/plain", None)
    secure = read(f"https://{{host}}:{{ports['tls']}}/secure", ssl.create_default_context(cadata=ca))
    return [plain['line'], secure['line']]
"""


@pytest.mark.parametrize('way', WAYS)
async def test_reads_by(reach, outside, way):
    run = await reach(READS.format(way=WAYS[way]))
    assert json.loads(run.outcome.output) == ['GET /plain HTTP/1.1', 'GET /secure HTTP/1.1']
    assert len(outside.came) >= 2
    assert ('INFO', f'Network: connected to api.example.com:{outside.ports["http"]} (127.0.0.1).') in run.told


TRIES = """
import asyncio, json, requests, socket, urllib.request
def attempt(call):
    try:
        return f'reached {call()}'
    except Exception as error:
        return f'{type(error).__name__}: {error}'
def main(ports: dict, ca: str, hosts: list = [], port: int = 0):
    port = port or ports['http']
    return [attempt(lambda: socket.create_connection((host, port), 5).close()) for host in hosts]
"""


async def test_other_hosts_are_refused_by_name_and_with_what_to_do(reach, outside):
    run = await reach(
        TRIES, {'hosts': ['evil.example.net', 'example.com', 'sub.example.com', 'xapi.example.com', 'api.example.com.evil.net']}
    )
    for said in json.loads(run.outcome.output):
        assert said.startswith('PermissionError: ')
        assert 'is not allowed: no rule of the workspace names it; a workspace admin can allow it in the egress policy' in said
    assert outside.came == outside.looked_up == []
    assert ('WARNING', f'Network: refused evil.example.net:{outside.ports["http"]}: {REFUSED}.') in run.told
    assert run.told[-1] == ('INFO', 'Network: 0 connections, 5 refused, 0 bytes sent, 0 received.')
    wrong = await reach(TRIES, {'hosts': ['api.example.com']}, ports=[443])
    assert 'PermissionError' in wrong.outcome.output
    told = await reach("import requests\ndef main(**given): requests.get('https://evil.example.net/')")
    assert told.outcome.raised.type.endswith('ConnectionError')
    assert 'evil.example.net:443 is not allowed' in told.outcome.raised.message


REFUSED = 'no rule of the workspace names it; a workspace admin can allow it in the egress policy (PATCH /v1/egressPolicy)'
SPELLINGS = [
    *('127.0.0.1', '127.1', '2130706433', '0x7f000001', '0x7f.1', '0177.0.0.1', '017700000001', '0', '::1', '[::1]', '::ffff:127.0.0.1'),
    *('169.254.169.254', '2852039166', '0xa9fea9fe', 'fe80::1', '10.0.0.1', '127.0.0.1.', '１２７.０.０.１', '127。0。0。1', 'localhost'),
    *(
        'api.example.com@127.0.0.1',
        'api.example.com#.evil',
        'api.example.com\x00.evil.net',
        '',
        ' ',
        '*',
        '*.sub.example.com',
        '..',
        'API.example.com/',
    ),
]


async def test_addresses_in_numbers_are_refused_however_they_are_written(reach, outside):
    run = await reach(TRIES, {'hosts': SPELLINGS}, hosts=('api.example.com', '*.sub.example.com'))
    said = json.loads(run.outcome.output)
    assert len(said) == len(SPELLINGS)
    assert not [one for one in zip(SPELLINGS, said, strict=True) if one[1].startswith('reached')]
    assert outside.came == outside.looked_up == []


@pytest.mark.parametrize(
    'address',
    ['127.0.0.1', '10.0.0.1', '169.254.169.254', '192.168.1.1', '100.64.0.1', '::1', 'fd00::1', '::ffff:127.0.0.1', '64:ff9b::7f00:1'],
)
async def test_names_that_stand_for_inner_addresses_are_refused(reach, outside, address):
    outside.names['api.example.com'] = [address]
    run = await reach(TRIES, {'hosts': ['api.example.com']}, inner=[])
    assert 'PermissionError' in run.outcome.output
    assert 'its name stands for an address that is not on the internet' in run.outcome.output
    outside.names['api.example.com'] = ['93.184.215.14', address]
    mixed = await reach(TRIES, {'hosts': ['api.example.com']}, inner=[])
    assert 'not on the internet' in mixed.outcome.output
    assert outside.came == []


async def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(reach, outside, monkeypatch):
    """A name server that answers with a public address first, and with an inner one from then on."""
    dialled = []

    async def dial(self, address: str, port: int) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError(111, 'Connection refused')

    monkeypatch.setattr(Gate, '_dial', dial)
    outside.names['changing.example.com'] = ['93.184.215.14', '127.0.0.1']
    run = await reach(TRIES, {'hosts': ['changing.example.com', 'changing.example.com']}, inner=[], hosts=('changing.example.com',))
    first, second = json.loads(run.outcome.output)
    assert 'could not be reached: Connection refused' in first
    assert 'not on the internet' in second
    assert dialled == ['93.184.215.14']
    assert outside.came == []


async def test_names_below_a_wildcard(reach, outside):
    run = await reach(TRIES, {'hosts': ['a.sub.example.com', 'A.Sub.Example.COM', 'a.sub.example.com.']})
    assert json.loads(run.outcome.output) == ['reached None'] * 3


async def test_limits_of_connections_and_bytes(reach, outside):
    held = """
import socket
def main(ports: dict, ca: str):
    held, said = [], ''
    try:
        for _ in range(9):
            held.append(socket.create_connection(('api.example.com', ports['silent'])))
    except OSError as error:
        said = str(error)
    held.pop().close()
    for _ in range(200):
        try:
            socket.create_connection(('api.example.com', ports['silent']))
            return [len(held), said]
        except OSError:
            pass
"""
    run = await reach(held, max_connections=3)
    count, said = json.loads(run.outcome.output)
    assert count == 2
    assert 'the run has 3 connections open, as many as the egress policy allows' in said
    much = """
import socket
def main(ports: dict, ca: str):
    count = 0
    with socket.create_connection(('api.example.com', ports['flood'])) as one:
        while part := one.recv(65536):
            count += len(part)
    try:
        socket.create_connection(('api.example.com', ports['flood']))
    except OSError as error:
        return [count, str(error)]
"""
    run = await reach(much, max_bytes=3 << 20)
    count, said = json.loads(run.outcome.output)
    assert count == run.gate.received == 3 << 20
    assert 'has carried as many bytes as the egress policy allows' in said
    assert any(level == 'WARNING' and 'has carried 3 MiB, as much as it may' in text for level, text in run.told)


async def test_timeouts_ends_and_half_closed_connections_are_as_ever(reach, outside):
    script = """
import socket, time
def main(ports: dict, ca: str):
    found = []
    one = socket.create_connection(('api.example.com', ports['silent']), timeout=0.05)
    found.append([one.getpeername()[1] == ports['silent'], one.getsockname()[0], one.gettimeout(), one.family.name])
    try:
        one.recv(1)
    except TimeoutError:
        found.append('timed out')
    one.settimeout(10)
    one.shutdown(socket.SHUT_WR)
    found.append(one.recv(1).decode())
    one.close()
    fresh = socket.socket()
    found.append(fresh.connect_ex(('nowhere.sub.example.com', 1)) != 0)
    for call in (lambda: fresh.bind(('127.0.0.1', 0)), fresh.listen, lambda: socket.socket(type=socket.SOCK_DGRAM), fresh.getpeername,
                 lambda: socket.gethostbyname('api.example.com')):
        try:
            found.append(f'no error: {call()}')
        except OSError as error:
            found.append(type(error).__name__)
    return found
"""
    run = await reach(script)
    expected = [
        [True, '0.0.0.0', 0.05, 'AF_INET'],
        'timed out',
        '',
        True,
        'PermissionError',
        'PermissionError',
        'PermissionError',
        'OSError',
        'gaierror',
    ]
    assert json.loads(run.outcome.output) == expected


async def test_what_a_script_does_to_its_gate_harms_only_itself(reach, outside):
    script = """
import array, json, os, socket, tempfile, urllib.request
def main(ports: dict, ca: str):
    gates = []
    for number in range(3, 64):
        try:
            one = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        if one.type == socket.SOCK_SEQPACKET and number != 3:
            gates.append(one)
    gate, said = gates[0], []
    for packet in (b' ', b'x', b'[]', b'{"host":1}', b'[' * 4000, b'{"host":"a.b","port":1e400}', os.urandom(4096), bytes(20000)):
        try:
            gate.send(packet, socket.MSG_DONTWAIT)
            a, b = socket.socketpair()
            socket.send_fds(gate, [packet], [b.fileno()], socket.MSG_DONTWAIT)
            b.close()
            a.settimeout(10)
            said.append(a.recv(4096).decode())
        except OSError as error:
            said.append(type(error).__name__)
    request = json.dumps({'host': 'api.example.com', 'port': ports['http']}).encode()
    with tempfile.TemporaryFile() as file:
        reading, writing = os.pipe()
        for descriptor in (file.fileno(), reading, writing, gate.fileno(), 0, 3):
            socket.send_fds(gate, [request], [descriptor])
        socket.send_fds(gate, [request], [writing] * 8)
    after = json.load(urllib.request.urlopen(f"http://api.example.com:{ports['http']}/after"))['line']
    gate.send(b'')
    while True:
        try:
            socket.create_connection(('api.example.com', ports['http'])).close()
        except OSError as error:
            return [said, after, str(error)]
"""
    run = await reach(script)
    said, after, end = json.loads(run.outcome.output)
    assert 'The way to the network is gone' in end
    assert after == 'GET /after HTTP/1.1'
    assert len(said) == 8
    assert not [one for one in said if 'address' in one]


async def test_a_process_that_is_kept_has_each_run_s_own_gate(keeping, reach, outside):
    script = """
import json, os, urllib.request
runs = 0
held = None
def main(ports: dict, ca: str, keep: bool = False):
    global runs, held
    runs += 1
    if keep:
        held = urllib.request.urlopen(f"http://api.example.com:{ports['http']}/")
        return runs
    with urllib.request.urlopen(f"http://api.example.com:{ports['http']}/") as answer:
        json.load(answer)
    return runs
"""
    for turn in (1, 2, 3):
        run = await reach(script, house=keeping, options={'reuse': 'network'})
        assert json.loads(run.outcome.output) == turn
        assert run.told[-1][1].startswith('Network: 1 connection, 0 refused')
    kept = await reach(script, {'keep': True}, house=keeping, options={'reuse': 'network'})
    assert json.loads(kept.outcome.output) == 4
    again = await reach(script, house=keeping, options={'reuse': 'network'})
    assert json.loads(again.outcome.output) == 1, 'a connection that a run left open ends its process'


async def test_without_a_gate_there_is_nothing(run):
    done = await run(TRIES, json.dumps({'ports': {'http': 80}, 'ca': '', 'hosts': ['api.example.com', '127.0.0.1']}))
    assert all(said.startswith(('gaierror', 'PermissionError', 'OSError')) for said in json.loads(done.output))


async def test_the_authorities_are_there(reach):
    run = await reach('import ssl, httpx\ndef main(**given): return len(ssl.create_default_context().get_ca_certs())')
    assert int(run.outcome.output) > 50
