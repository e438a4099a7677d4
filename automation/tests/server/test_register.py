"""The server announces itself to the executions area, as a service with a token of its own, for as long as it lives."""

import asyncio

import grpc
import jwt
import pytest
from millrace.executions.v1 import server_service_pb2 as pb
from millrace.executions.v1 import server_service_pb2_grpc as pb_grpc


class Executions(pb_grpc.ServerServiceServicer):
    """The other end of the wire: takes announcements down and asks for the next one soon."""

    def __init__(self) -> None:
        self.refusals = 2
        self.calls: asyncio.Queue[tuple[pb.RegisterServerRequest, dict[str, str]]] = asyncio.Queue()

    async def RegisterServer(self, request, context):
        if self.refusals:
            self.refusals -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, 'not yet')
        self.calls.put_nowait((request, dict(context.invocation_metadata())))
        return pb.RegisterServerResponse(again_after_ms=150)

    async def next(self) -> tuple[pb.RegisterServerRequest, dict[str, str]]:
        async with asyncio.timeout(30):
            return await self.calls.get()


@pytest.fixture
async def executions():
    server, servicer = grpc.aio.server(), Executions()
    pb_grpc.add_ServerServiceServicer_to_server(servicer, server)
    servicer.address = f'127.0.0.1:{server.add_insecure_port("127.0.0.1:0")}'
    await server.start()
    yield servicer
    await server.stop(None)


async def test_it_registers_again_and_again_and_says_when_it_drains(start_runner, executions, keys) -> None:
    runner = await asyncio.to_thread(
        start_runner,
        executions_url=executions.address,
        service_keys=keys.folder,
        automation_slots=3,
        automation_labels='zone=a,gpu=no',
    )
    request, metadata = await executions.next()  # after two refusals
    assert request.server_id == runner.server_id
    assert request.endpoint == runner.address
    assert dict(request.labels) == {'zone': 'a', 'gpu': 'no'}
    assert (request.slots, request.protocol, request.minimum_tier) == (3, 1, 1)
    assert request.sandbox_tier >= 1
    assert not request.draining
    token = metadata['authorization'].removeprefix('Bearer ')
    public = next(key for key in jwt.PyJWKSet.from_json(keys.jwks.read_text()).keys if key.key_id == 'runner')
    claims = jwt.decode(token, public.key, algorithms=['EdDSA'], audience='service/executions', issuer='millrace')
    assert claims['sub'] == 'service/runner'
    assert claims['exp'] - claims['iat'] == 60
    assert jwt.get_unverified_header(token)['typ'] == 'service+jwt'
    await executions.next()
    assert '"registration": "ok"' in (await asyncio.to_thread(runner.get, '/readyz'))[1]
    runner.process.terminate()
    while not (await executions.next())[0].draining:
        pass


async def test_its_endpoint_can_be_another_one(start_runner, executions, keys) -> None:
    executions.refusals = 0
    await asyncio.to_thread(
        start_runner, executions_url=executions.address, service_keys=keys.folder, automation_endpoint='runner-7.internal:9000'
    )
    assert (await executions.next())[0].endpoint == 'runner-7.internal:9000'
