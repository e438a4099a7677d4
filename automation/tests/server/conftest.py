"""A real server in its own process, and a dispatcher that speaks the contract with it."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AUTOMATION = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.environ.get('MILLRACE_AUTOMATION_STUBS') or str(AUTOMATION.parent / 'build/py'))

from google.rpc import error_details_pb2, status_pb2
from millrace.runner.v1 import job_pb2, session_pb2
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc

SERVICES = ('dispatcher', 'automations', 'runner', 'tasks')
PATIENCE = 30.0


class Keys:
    """The keys of the services, as the launcher makes them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.jwks = folder / 'services.json'
        self._entries: dict[str, dict[str, str]] = {}
        for name in SERVICES:
            self.make(name)

    def make(self, name: str) -> None:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / f'{name}.pem').write_bytes(pem)
        x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b'=').decode()
        self._entries[name] = {'kty': 'OKP', 'crv': 'Ed25519', 'alg': 'EdDSA', 'use': 'sig', 'kid': name, 'x': x}
        self.jwks.write_text(json.dumps({'keys': list(self._entries.values())}))

    def token(self, name: str = 'dispatcher', header: dict[str, object] | None = None, **claims: object) -> str:
        now = int(time.time())
        body = {'iss': 'millrace', 'sub': f'service/{name}', 'aud': 'service/runner', 'iat': now, 'exp': now + 60, **claims}
        body = {key: value for key, value in body.items() if value is not None}
        pem = (self.folder / f'{name}.pem').read_text()
        return jwt.encode(body, pem, algorithm='EdDSA', headers={'kid': name, 'typ': 'service+jwt', **(header or {})})


class Runner:
    """A server process. Its log lines are read as they come."""

    def __init__(self, keys: Keys, settings: dict[str, str]):
        self.keys = keys
        self.lines: list[dict[str, object]] = []
        self._arrivals: queue.Queue[dict[str, object] | None] = queue.Queue()
        environment = {
            'PATH': os.environ['PATH'],
            'MILLRACE_SERVICE_JWKS': str(keys.jwks),
            'MILLRACE_AUTOMATION_STUBS': sys.path[0],
            'MILLRACE_AUTOMATION_PREPARED': '2',
            'MILLRACE_LOG_LEVEL': 'debug',
            **{name: value for name, value in os.environ.items() if name in ('PYTHONPATH', 'MILLRACE_AUTOMATION_ENVIRONMENTS')},
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'millrace_automation'], cwd=AUTOMATION, env=environment, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()
        ready = self.log('ready')
        self.address, self.admin, self.server_id = str(ready['address']), str(ready['admin']), str(ready['server'])

    def _read(self) -> None:
        for text in self.process.stdout:
            with contextlib.suppress(ValueError):
                self._arrivals.put(json.loads(text))
        self._arrivals.put(None)

    def log(self, message: str) -> dict[str, object]:
        """The next log line with that message."""
        while True:
            line = self._arrivals.get(timeout=PATIENCE)
            assert line is not None, f'the server ended with code {self.process.wait()} before it said {message!r}: {self.lines}'
            self.lines.append(line)
            if line['msg'] == message:
                return line

    def get(self, path: str) -> tuple[int, str]:
        """What the admin port answers."""
        try:
            with urllib.request.urlopen(f'http://{self.admin}{path}', timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def slots(self) -> dict[str, int]:
        return json.loads(self.get('/readyz')[1])['slots']

    def resident_kib(self) -> int:
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith('VmRSS')))

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE)

    def stop(self) -> None:
        """Ends it, if it has not ended, and looks whether it complained."""
        if self.process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGINT):  # two of a kind may arrive as one
                self.process.send_signal(number)
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        while line := self._arrivals.get(timeout=PATIENCE):
            self.lines.append(line)
        assert not self.complaints()

    def complaints(self) -> list[object]:
        """The errors in its log that were not asked for before."""
        found = [line['msg'] for line in self.lines if line['level'] >= 50]
        self.lines.clear()
        return found


@dataclass
class Told:
    items: list[session_pb2.OutputItem] = field(default_factory=list)
    lines: list[job_pb2.Line] = field(default_factory=list)
    result: job_pb2.Result | None = None


@dataclass
class Stream:
    """One stream of a session. Answers are collected as they come unless `reads` is off."""

    call: grpc.aio.StreamStreamCall
    answers: list[session_pb2.SessionResponse] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    reader: asyncio.Task[None] | None = None
    ended: bool = False
    _told: defaultdict[bytes, Told] = field(default_factory=lambda: defaultdict(Told))
    _looked_at: int = 0

    def told(self, job: job_pb2.Job) -> Told:
        """What came of the job. Each answer is looked at once: there may be thousands."""
        for answer in self.answers[self._looked_at :]:
            for item in answer.output.items:
                told = self._told[item.claim_id]
                told.items.append(item)
                told.lines.extend(item.lines)
                told.result = item.result if item.HasField('result') else told.result
        self._looked_at = len(self.answers)
        return self._told[job.claim_id]

    async def read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while (answer := await self.call.read()) is not grpc.aio.EOF:
                self.answers.append(answer)
                self.arrived.set()
        self.ended = True
        self.arrived.set()

    def collect(self) -> None:
        self.reader = asyncio.create_task(self.read())

    async def until(self, is_reached: Callable[[], object]) -> object:
        async with asyncio.timeout(PATIENCE):
            while not (found := is_reached()):
                assert not self.ended, f'the stream ended: {await self.call.code()} {await self.call.details()}'
                self.arrived.clear()
                await self.arrived.wait()
        return found

    async def next(self, kind: str, count: int = 1) -> session_pb2.SessionResponse:
        """The count-th answer of the kind."""
        found = await self.until(lambda: [answer for answer in self.answers if answer.WhichOneof('message') == kind][count - 1 :])
        return found[0]

    async def code(self) -> grpc.StatusCode:
        async with asyncio.timeout(PATIENCE):
            return await self.call.code()


class Dispatcher:
    """Plays the dispatcher's side of a session."""

    def __init__(self, runner: Runner, epoch: int, name: str = 'dsp_a'):
        self.epoch = epoch
        self.name = name
        self.channels = [grpc.aio.insecure_channel(runner.address) for _ in range(2)]
        self.runner = runner

    async def open(self, channel: str, reads: bool = True, server_id: str = '') -> Stream:
        opening = session_pb2.SessionOpen(dispatcher_id=self.name, epoch=self.epoch, channel=channel, server_id=server_id)
        stub = pb_grpc.RunnerServiceStub(self.channels[channel == 'OUTPUT'])
        call = stub.Session(metadata=(('authorization', f'Bearer {self.runner.keys.token()}'),))
        await call.write(session_pb2.SessionRequest(open=opening))
        stream = Stream(call)
        if reads:
            stream.collect()
        return stream

    async def connect(self) -> 'Dispatcher':
        self.control, self.output = await self.open('CONTROL'), await self.open('OUTPUT')
        self.opened = (await self.control.next('opened')).opened
        await self.output.next('opened')
        return self

    async def start(self, *jobs: job_pb2.Job) -> None:
        await self.control.call.write(session_pb2.SessionRequest(start=session_pb2.StartJobs(jobs=jobs)))

    async def cancel(self, *jobs: job_pb2.Job) -> None:
        claims = [job.claim_id for job in jobs]
        await self.control.call.write(session_pb2.SessionRequest(cancel=session_pb2.CancelJobs(claim_ids=claims)))

    async def drop(self, *jobs: job_pb2.Job) -> None:
        claims = [job.claim_id for job in jobs]
        await self.control.call.write(session_pb2.SessionRequest(drop=session_pb2.DropJobs(claim_ids=claims)))

    async def ping(self, nonce: int) -> None:
        await self.control.call.write(session_pb2.SessionRequest(ping=session_pb2.Ping(nonce=nonce)))

    async def confirm(self, job: job_pb2.Job, lines: int = 0, started: bool = False, result: bool = False) -> None:
        item = session_pb2.ConfirmOutput.Item(claim_id=job.claim_id, lines=lines, started=started, result=result)
        await self.output.call.write(session_pb2.SessionRequest(confirm=session_pb2.ConfirmOutput(items=[item])))

    def items(self, job: job_pb2.Job) -> list[session_pb2.OutputItem]:
        return self.output.told(job).items

    def lines(self, job: job_pb2.Job) -> list[job_pb2.Line]:
        return self.output.told(job).lines

    def credits(self) -> int:
        granted = sum(answer.credit.add for answer in self.control.answers if answer.WhichOneof('message') == 'credit')
        return self.opened.credits + granted

    async def result(self, job: job_pb2.Job) -> job_pb2.Result:
        return await self.output.until(lambda: self.output.told(job).result)

    async def started(self, job: job_pb2.Job) -> None:
        await self.output.until(lambda: any(item.HasField('started') for item in self.items(job)))

    async def printed(self, job: job_pb2.Job, count: int = 1) -> None:
        await self.output.until(lambda: len(self.lines(job)) >= count)

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()


def new_job(source: str, **fields: object) -> job_pb2.Job:
    claim_id = os.urandom(16)
    return job_pb2.Job(source=source, claim_id=claim_id, execution_id=f'exe_{claim_id.hex()[:26]}', attempt=1, **fields)


def sha256_of(lines: list[job_pb2.Line]) -> str:
    return hashlib.sha256(''.join(line.text + ('' if line.partial else '\n') for line in lines).encode()).hexdigest()


def details_of(error: grpc.aio.AioRpcError) -> dict[str, object]:
    """The details of an error by the name of their type."""
    trailers = dict(error.trailing_metadata() or ())
    found = {}
    for detail in status_pb2.Status.FromString(trailers['grpc-status-details-bin']).details:
        kind = detail.TypeName().rpartition('.')[2]
        found[kind] = getattr(error_details_pb2, kind).FromString(detail.value)
    return found


@pytest.fixture(scope='session')
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp('keys'))


@pytest.fixture(scope='session')
def runner(keys: Keys) -> Iterator[Runner]:
    """The server that most tests share. Each leaves it without jobs."""
    one = Runner(keys, {'MILLRACE_AUTOMATION_SLOTS': '4'})
    yield one
    one.stop()


@pytest.fixture
def start_runner(keys: Keys) -> Iterator[Callable[..., Runner]]:
    """Starts servers of a test's own."""
    started: list[Runner] = []

    def start(**settings: object) -> Runner:
        names = {name if name.isupper() else f'MILLRACE_{name.upper()}': str(value) for name, value in settings.items()}
        started.append(Runner(keys, names))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
async def stub(runner: Runner) -> AsyncIterator[pb_grpc.RunnerServiceStub]:
    async with grpc.aio.insecure_channel(runner.address) as channel:
        yield pb_grpc.RunnerServiceStub(channel)


@pytest.fixture
def bearer(keys: Keys) -> tuple[tuple[str, str]]:
    return (('authorization', f'Bearer {keys.token()}'),)


@pytest.fixture(scope='session')
def epochs() -> Iterator[int]:
    return iter(range(1, 10_000))


async def clear(runner: Runner, epoch: int) -> None:
    """Drops the jobs that a test left, and waits until their slots are free."""
    one = await Dispatcher(runner, epoch).connect()
    if one.opened.held:
        await one.control.call.write(
            session_pb2.SessionRequest(drop=session_pb2.DropJobs(claim_ids=[held.claim_id for held in one.opened.held]))
        )
    stub = pb_grpc.RunnerServiceStub(one.channels[0])
    metadata = (('authorization', f'Bearer {runner.keys.token()}'),)
    async with asyncio.timeout(PATIENCE):
        while (await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=metadata)).running:
            await asyncio.sleep(0.02)
    await one.close()


@pytest.fixture
async def dispatch(runner: Runner, epochs: Iterator[int]) -> AsyncIterator[Callable[..., object]]:
    """Opens sessions, each with a higher epoch than the one before unless told; drops what is left at the end."""
    opened: list[Dispatcher] = []

    async def connect(to: Runner = runner, epoch: int = 0, name: str = 'dsp_a') -> Dispatcher:
        while to.slots()['free'] > to.slots()['total']:  # after many short jobs it asks for more of them than it has slots
            await asyncio.sleep(0.05)
        opened.append(Dispatcher(to, epoch or next(epochs), name))
        return await opened[-1].connect()

    yield connect
    for one in opened:
        await one.close()
    if opened:
        await clear(runner, next(epochs))  # also what was confirmed, but not read before the end


@pytest.fixture
def job() -> Callable[..., job_pb2.Job]:
    return new_job


@pytest.fixture
def sha256() -> Callable[[list[job_pb2.Line]], str]:
    return sha256_of


@pytest.fixture
def details() -> Callable[[grpc.aio.AioRpcError], dict[str, object]]:
    return details_of


@pytest.fixture
async def run(stub: pb_grpc.RunnerServiceStub, bearer: tuple[tuple[str, str]]) -> Callable[..., object]:
    """Runs a job by hand and gives its frames."""

    async def collect(source: str, **fields: object) -> list[pb.RunResponse]:
        async with asyncio.timeout(PATIENCE):
            return [frame async for frame in stub.Run(pb.RunRequest(job=job_pb2.Job(source=source, **fields)), metadata=bearer)]

    return collect
