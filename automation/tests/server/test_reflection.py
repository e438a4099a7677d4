"""Reflection, v1 and v1alpha, and health: open to anyone, and enough for a client that has no contract."""

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc

# the questions and answers of the protocol, by number: its stubs cannot be imported beside the library named grpc
PROTOCOL = descriptor_pb2.FileDescriptorProto(name='asked.proto', package='asked', syntax='proto3')
for name, fields in {
    'Extension': [(1, 'containing_type', 9, ''), (2, 'extension_number', 5, '')],
    'Question': [
        (3, 'by_name', 9, ''),
        (4, 'by_symbol', 9, ''),
        (5, 'by_extension', 11, 'Extension'),
        (6, 'numbers', 9, ''),
        (7, 'list', 9, ''),
    ],
    'Files': [(1, 'file', 12, '*')],
    'Numbers': [(1, 'type', 9, ''), (2, 'number', 5, '*')],
    'Service': [(1, 'name', 9, '')],
    'Services': [(1, 'service', 11, '*Service')],
    'Fault': [(1, 'code', 5, ''), (2, 'message', 9, '')],
    'Answer': [(4, 'files', 11, 'Files'), (5, 'numbers', 11, 'Numbers'), (6, 'services', 11, 'Services'), (7, 'fault', 11, 'Fault')],
}.items():
    message = PROTOCOL.message_type.add(name=name)
    for number, field, kind, of in fields:
        label = 3 if of.startswith('*') else 1
        of = of.lstrip('*')
        message.field.add(name=field, number=number, type=kind, label=label, type_name=f'.asked.{of}' if of else None)
POOL = descriptor_pool.DescriptorPool()
POOL.Add(PROTOCOL)
Question, Answer = (message_factory.GetMessageClass(POOL.FindMessageTypeByName(f'asked.{name}')) for name in ('Question', 'Answer'))


@pytest.fixture(params=['v1', 'v1alpha'])
async def ask(request, runner):
    async with grpc.aio.insecure_channel(runner.address) as channel:
        call = channel.stream_stream(
            f'/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo',
            request_serializer=Question.SerializeToString,
            response_deserializer=Answer.FromString,
        )()

        async def question(**fields):
            await call.write(Question(**fields))
            return await call.read()

        yield question
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_the_services_are_listed(ask) -> None:
    found = await ask(list='*')
    assert [service.name for service in found.services.service] == [
        'grpc.health.v1.Health',
        'grpc.reflection.v1.ServerReflection',
        'grpc.reflection.v1alpha.ServerReflection',
        'millrace.runner.v1.RunnerService',
    ]


async def test_every_listed_service_is_described_with_all_that_it_imports(ask) -> None:
    for service in (await ask(list='')).services.service:
        described = (await pool_of(ask, service.name)).FindServiceByName(service.name)
        assert described.methods
    pool = await pool_of(ask, 'millrace.runner.v1.Job')
    job = pool.FindMessageTypeByName('millrace.runner.v1.Job')
    assert job.fields_by_name['start_to_close'].message_type.full_name == 'google.protobuf.Duration'


async def pool_of(ask, symbol: str) -> descriptor_pool.DescriptorPool:
    """A client's view: the files of one answer must be enough to understand the symbol."""
    files = {}
    for data in (await ask(by_symbol=symbol)).files.file:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        files[file.name] = file
    pool = descriptor_pool.DescriptorPool()
    added = set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


async def test_symbols_files_and_extensions_are_found(ask) -> None:
    for symbol in ('millrace.runner.v1.RunnerService.Run', 'millrace.runner.v1.Line.Stream', 'millrace.runner.v1.Job.source'):
        assert (await ask(by_symbol=symbol)).files.file
    assert (await ask(by_symbol='google.protobuf.Timestamp')).files.file
    assert (await ask(by_name='google/protobuf/struct.proto')).files.file
    extension = (await ask(by_extension={'containing_type': 'google.protobuf.MethodOptions', 'extension_number': 50100})).files.file[0]
    assert descriptor_pb2.FileDescriptorProto.FromString(extension).name == 'millrace/options/v1/policy.proto'
    assert 50100 in (await ask(numbers='google.protobuf.MethodOptions')).numbers.number


async def test_what_is_unknown_is_said_so_and_the_stream_goes_on(ask) -> None:
    for question in ({'by_symbol': 'no.Such'}, {'by_name': 'no/such.proto'}, {'numbers': 'no.Such'}):
        assert (await ask(**question)).fault.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert (await ask()).fault.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert (await ask(list='*')).services.service


@pytest.mark.parametrize('service', ['', 'millrace.runner.v1.RunnerService'])
async def test_health_is_open(runner, service) -> None:
    async with grpc.aio.insecure_channel(runner.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
