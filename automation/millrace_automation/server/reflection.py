"""Server reflection v1 and v1alpha, served from the descriptor image: the two differ in nothing but their package."""

from collections.abc import AsyncIterator, Iterator
from functools import partial

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICES = ('grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection')
_NOT_FOUND, _UNIMPLEMENTED = grpc.StatusCode.NOT_FOUND.value[0], grpc.StatusCode.UNIMPLEMENTED.value[0]


class Reflection:
    """Answers questions about the files of the image. `services` are listed."""

    def __init__(self, image: descriptor_pb2.FileDescriptorSet, services: list[str]):
        self._services = sorted(services)
        self._files = {file.name: file for file in image.file}
        self._symbols = {symbol: file.name for file in image.file for symbol in _symbols(file)}
        self._extensions: dict[str, dict[int, str]] = {}
        for file in image.file:
            for extension in _extensions(file):
                self._extensions.setdefault(extension.extendee.lstrip('.'), {})[extension.number] = file.name

    def add_to(self, server: grpc.aio.Server) -> None:
        # own pool: the stubs of a package named grpc cannot be imported beside the library of that name
        pool = descriptor_pool.DescriptorPool()
        for file in self._files.values():
            if file.package.startswith('grpc.reflection.'):
                pool.Add(file)
        for service in SERVICES:
            package = service.rpartition('.')[0]
            request, response = (
                message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{package}.ServerReflection{kind}'))
                for kind in ('Request', 'Response')
            )
            handler = grpc.stream_stream_rpc_method_handler(
                partial(self._answer_all, response), request.FromString, response.SerializeToString
            )
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {'ServerReflectionInfo': handler})])

    async def _answer_all(self, response: type, requests: AsyncIterator[object], context: object) -> AsyncIterator[object]:
        async for request in requests:
            yield self._answer(request, response(valid_host=request.host, original_request=request))

    def _answer(self, request: object, answer: object) -> object:
        match request.WhichOneof('message_request'):
            case 'list_services':
                answer.list_services_response.SetInParent()
                for name in self._services:
                    answer.list_services_response.service.add(name=name)
            case 'file_by_filename':
                self._give(answer, request.file_by_filename if request.file_by_filename in self._files else None)
            case 'file_containing_symbol':
                self._give(answer, self._symbols.get(request.file_containing_symbol.lstrip('.')))
            case 'file_containing_extension':
                asked = request.file_containing_extension
                self._give(answer, self._extensions.get(asked.containing_type, {}).get(asked.extension_number))
            case 'all_extension_numbers_of_type':
                name = request.all_extension_numbers_of_type
                if name in self._symbols:
                    answer.all_extension_numbers_response.base_type_name = name
                    answer.all_extension_numbers_response.extension_number.extend(sorted(self._extensions.get(name, {})))
                else:
                    self._give(answer, None)
            case _:
                answer.error_response.error_code, answer.error_response.error_message = _UNIMPLEMENTED, 'unknown question'
        return answer

    def _give(self, answer: object, name: str | None) -> None:
        """The file and all that it imports, so that one question is enough."""
        if name is None:
            answer.error_response.error_code, answer.error_response.error_message = _NOT_FOUND, 'not found'
            return
        waiting, seen = [name], set()
        while waiting:
            file = self._files[waiting.pop(0)]
            if file.name not in seen:
                seen.add(file.name)
                answer.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
                waiting += file.dependency


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    scope = f'{file.package}.' if file.package else ''
    for service in file.service:
        yield scope + service.name
        yield from (f'{scope}{service.name}.{method.name}' for method in service.method)
    yield from (scope + extension.name for extension in file.extension)
    yield from _types(scope, file.message_type, file.enum_type)


def _types(scope: str, messages: object, enums: object) -> Iterator[str]:
    for enum in enums:
        yield scope + enum.name
        yield from (scope + value.name for value in enum.value)  # values are siblings of their enum
    for message in messages:
        name = scope + message.name
        yield name
        yield from (f'{name}.{part.name}' for part in (*message.field, *message.oneof_decl, *message.extension))
        yield from _types(f'{name}.', message.nested_type, message.enum_type)


def _extensions(holder: object) -> Iterator[descriptor_pb2.FieldDescriptorProto]:
    """Those of a file or a message, nested ones included."""
    yield from holder.extension
    for message in getattr(holder, 'message_type', None) or getattr(holder, 'nested_type', ()):
        yield from _extensions(message)
