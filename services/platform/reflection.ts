// Server reflection v1 and v1alpha, answered from the descriptor image: `grpcurl list`, `describe` and calls work without -proto.
// Source: grpc/reflection/v1/reflection.proto. (@grpc/reflection fails on messages with well-known types, grpc/grpc-node#2958.)

import { type DescFile, type FileRegistry, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import {
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionService,
} from '#gen/grpc/reflection/v1/reflection.ts';
import { ServerReflectionService as AlphaService } from '#gen/grpc/reflection/v1alpha/reflection.ts';
import type { Contract } from './contract.ts';

const EDGE = 'x-millrace-edge'; // set by the edge, which removes it from what callers send

// `own` are the services of this server; through the edge every service that the edge serves is listed.
export function addReflection(server: Server, contract: Contract, own: () => string[]): void {
  const registry = contract.registry;
  const reachable = [...new Set([...contract.methods.values()].filter((m) => m.access !== 'SERVICE').map((m) => m.service))];

  function answer(request: ServerReflectionRequest, isEdge: boolean): Partial<ServerReflectionResponse> {
    if (request.listServices !== undefined) {
      const names = isEdge ? [...reachable, 'grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection'] : own();
      return { listServicesResponse: { service: [...new Set(names)].sort().map((name) => ({ name })) } };
    }
    const { containingType, extensionNumber } = request.fileContainingExtension ?? {};
    if (request.allExtensionNumbersOfType !== undefined) {
      const numbers = extensionsOf(registry, request.allExtensionNumbersOfType).map((extension) => extension.number);
      return { allExtensionNumbersResponse: { baseTypeName: request.allExtensionNumbersOfType, extensionNumber: numbers } };
    }
    const name = request.fileByFilename ?? request.fileContainingSymbol ?? containingType ?? '';
    const file =
      request.fileByFilename !== undefined
        ? [...registry.files].find((one) => `${one.name}.proto` === name)
        : containingType !== undefined
          ? extensionsOf(registry, containingType).find((extension) => extension.number === extensionNumber)?.file
          : fileOf(registry, name);
    if (!file) return { errorResponse: { errorCode: status.NOT_FOUND, errorMessage: `${name} is not known here` } };
    return {
      fileDescriptorResponse: {
        fileDescriptorProto: [...closure(file)].map((one) => Buffer.from(toBinary(FileDescriptorProtoSchema, one.proto))),
      },
    };
  }

  const serverReflectionInfo = (call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>) => {
    const isEdge = call.metadata.get(EDGE).length > 0;
    call.on('data', (request: ServerReflectionRequest) =>
      call.write({ validHost: request.host, originalRequest: request, ...answer(request, isEdge) } as ServerReflectionResponse),
    );
    call.on('end', () => call.end());
    call.on('error', () => call.end());
  };
  server.addService(ServerReflectionService, { serverReflectionInfo });
  server.addService(AlphaService, { serverReflectionInfo: serverReflectionInfo as never });
}

const extensionsOf = (registry: FileRegistry, type: string) =>
  [...registry].filter((desc) => desc.kind === 'extension' && desc.extendee.typeName === type) as Extract<
    ReturnType<FileRegistry['get']>,
    { kind: 'extension' }
  >[];

// A symbol is a type, or a member of one: a method, a field or an enum value.
function fileOf(registry: FileRegistry, symbol: string): DescFile | undefined {
  const parent = symbol.slice(0, symbol.lastIndexOf('.'));
  return registry.get(symbol)?.file ?? registry.get(parent)?.file;
}

function closure(file: DescFile, seen = new Set<DescFile>()): Set<DescFile> {
  if (seen.has(file)) return seen;
  seen.add(file);
  for (const dependency of file.dependencies) closure(dependency, seen);
  return seen;
}
