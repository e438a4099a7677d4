"""Jobs that reach the network, by a real server: what their log says, whose process they share, and what happens without who connects."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import egress_pb2, job_pb2
from millrace.runner.v1 import runner_service_pb2 as pb
from millrace.runner.v1 import runner_service_pb2_grpc as pb_grpc

PATIENCE = 30.0
REUSED = spec_pb2.AutomationSpec.REUSED
FETCH = """
import urllib.request
n = 0
def main(port: int, hosts: list = ['localhost']):
    global n
    n += 1
    said = []
    for host in hosts:
        try:
            with urllib.request.urlopen(f'http://{host}:{port}/', timeout=20) as answer:
                said.append(answer.read().decode())
        except OSError as error:
            said.append(str(error))
    return [n, *said]
"""


@pytest.fixture(scope='module')
def open_runner(runner, keys) -> Iterator[object]:
    """A server that lets rules lead to this machine."""
    one = type(runner)(keys, {'MILLRACE_AUTOMATION_EGRESS_ALLOW': '127.0.0.0/8, ::1/128', 'MILLRACE_AUTOMATION_SLOTS': '4'})
    yield one
    one.stop()


@pytest.fixture
async def web() -> AsyncIterator[int]:
    """The port of a server that says hello."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b'\r\n\r\n')
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello')
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, 'localhost', 0) as server:
        yield server.sockets[0].getsockname()[1]


def grant(port: int, *hosts: str, **limits: int) -> egress_pb2.Egress:
    return egress_pb2.Egress(rules=[egress_pb2.Egress.Rule(host=host, ports=[port]) for host in hosts], **limits)


async def fetch(runner, port: int, *hosts: str, source: str = FETCH, printed=lambda: None, **fields: object) -> list[pb.RunResponse]:
    """Runs a job by hand and gives its frames; `printed` is called when it has printed something."""
    given = json.dumps({'port': port} | ({'hosts': hosts} if hosts else {}))
    async with grpc.aio.insecure_channel(runner.address) as channel, asyncio.timeout(PATIENCE):
        call = pb_grpc.RunnerServiceStub(channel).Run(
            pb.RunRequest(job=job_pb2.Job(source=source, input_json=given, **fields)),
            metadata=(('authorization', f'Bearer {runner.keys.token()}'),),
        )
        frames = []
        async for frame in call:
            frames.append(frame)
            if frame.line.stream == job_pb2.Line.STDOUT:
                printed()
        return frames


def output(frames: list[pb.RunResponse]) -> list[object]:
    assert frames[-1].result.outcome == job_pb2.Result.SUCCEEDED, frames[-1]
    return json.loads(frames[-1].result.output_json)


def connectors(runner) -> list[int]:
    """Processes of the server that connect for its runs."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            parent = int((path / 'stat').read_text().rpartition(')')[2].split()[1])
            if parent == runner.process.pid and b'egress_process' in (path / 'cmdline').read_bytes():
                found.append(int(path.name))
    return found


async def test_a_job_reaches_what_its_rules_name_and_its_log_says_so(open_runner, web) -> None:
    await fetch(open_runner, web, source='def main(**given): return [0]')
    assert not connectors(open_runner), 'a server whose jobs have no network needs nobody who connects'
    frames = await fetch(open_runner, web, 'localhost', 'other.example', egress=grant(web, 'localhost'))
    reached, refused = output(frames)[1:]
    assert reached == 'hello'
    assert f'other.example:{web} is not allowed: no rule of the workspace names it' in refused
    assert len(connectors(open_runner)) == 1
    told = [(frame.line.level, frame.line.text) for frame in frames if frame.line.stream == job_pb2.Line.SYSTEM]
    assert told[0][0] == 'INFO'
    assert told[0][1].startswith(f'Network: connected to localhost:{web} (')
    assert told[1][1].startswith(f'Network: refused other.example:{web}: no rule of the workspace names it')
    assert told[2][1].startswith('Network: 1 connection, 1 refused, ')
    assert frames[-1].result.log_count == 3


async def test_inner_addresses_are_refused_unless_the_server_lets_rules_lead_there(runner, web) -> None:
    frames = await fetch(runner, web, egress=grant(web, 'localhost'))
    assert 'its name stands for an address that is not on the internet' in output(frames)[1]


async def test_a_job_without_a_grant_and_one_with_an_empty_grant_reach_nothing(open_runner, web) -> None:
    assert 'hello' not in output(await fetch(open_runner, web))
    assert 'no rule of the workspace names it' in output(await fetch(open_runner, web, egress=egress_pb2.Egress()))[1]


async def test_processes_are_shared_only_under_the_same_policy(open_runner, web) -> None:
    shared = {'isolation': REUSED, 'reuse_key': 'revision', 'principal': 'usr_a'}
    one, other = grant(web, 'localhost'), grant(web, 'localhost', 'b.example')
    turns = [one, one, other, None, one, egress_pb2.Egress()]
    counts = [output(await fetch(open_runner, web, **shared, **({'egress': grant} if grant else {})))[0] for grant in turns]
    assert counts == [1, 2, 1, 1, 3, 1]


async def test_when_who_connects_dies_its_runs_lose_their_network_and_the_next_have_it_again(open_runner, web) -> None:
    assert output(await fetch(open_runner, web, egress=grant(web, 'localhost')))[1] == 'hello'
    (connector,) = connectors(open_runner)
    waits = """
import socket
def main(port: int):
    held = socket.create_connection(('localhost', port))
    print('connected')
    end = held.recv(1)
    while True:
        try:
            socket.create_connection(('localhost', port), 5)
        except OSError as error:
            return [end.decode(), str(error)]
"""
    kill = partial(os.kill, connector, signal.SIGKILL)
    end, said = output(await fetch(open_runner, web, source=waits, printed=kill, egress=grant(web, 'localhost')))
    assert end == ''
    assert 'The way to the network is gone' in said
    assert output(await fetch(open_runner, web, egress=grant(web, 'localhost')))[1] == 'hello'
    assert connectors(open_runner) != [connector]
    open_runner.log('the process that connects for runs has ended')
    assert open_runner.complaints() == ['the process that connects for runs has ended']
