// What Envoy needs of the descriptor image: the methods that the edge serves with their messages, and the types of error details.
import { createHash } from 'node:crypto';
import { clone, create, type DescFile, toBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { Contract, Method } from '#platform/contract.ts';

export interface Descriptor {
  name: string; // changes with the content, so that a running Envoy reads it again
  bytes: Uint8Array;
}

// A detail whose type is missing would turn every error into an empty answer.
const DETAILS = 'google.rpc.ErrorInfo';

export function pruneDescriptor(contract: Contract, methods: readonly Method[]): Descriptor {
  const details = contract.registry.getMessage(DETAILS);
  if (!details) throw new Error(`the image does not hold ${DETAILS}: run make gen`);
  const served = new Set(methods.map((method) => method.desc.proto));
  const files = new Set<DescFile>();
  for (const file of [details.file, ...methods.map((method) => method.desc.parent.file)]) collect(file, files);
  const set = create(FileDescriptorSetSchema, { file: [...files].map((file) => only(file.proto, served)) });
  const bytes = toBinary(FileDescriptorSetSchema, set);
  return { name: `edge-${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}.binpb`, bytes };
}

// Dependencies first, as the order of a descriptor set demands.
function collect(file: DescFile, into: Set<DescFile>): void {
  if (into.has(file)) return;
  for (const dependency of file.dependencies) collect(dependency, into);
  into.add(file);
}

function only(file: FileDescriptorProto, served: ReadonlySet<unknown>): FileDescriptorProto {
  const kept = clone(FileDescriptorProtoSchema, file);
  for (const [at, service] of kept.service.entries())
    service.method = service.method.filter((_, index) => served.has(file.service[at]?.method[index]));
  kept.service = kept.service.filter((service) => service.method.length > 0);
  return kept;
}
