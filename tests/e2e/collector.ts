// A collector of traces: takes OTLP over HTTP (OpenTelemetry Protocol 1.x, binary protobuf) as a real one does, and keeps the spans.
// Its contract is the one that the automation server's OpenTelemetry brings along.
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { createFileRegistry, fromBinary, toJson } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { Json } from './rest.ts';

export interface Span {
  service: string; // which part of the stack tells of it
  name: string;
  kind: string;
  trace: string; // ids in hexadecimal
  id: string;
  parent: string;
  attributes: Record<string, string>;
  links: string[]; // the traces of other spans
}
export interface Collector {
  url: string;
  spans: Span[];
  stop(): void;
}

const REQUEST = 'opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest';
const DESCRIPTORS = `
import sys
from google.protobuf import descriptor_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
files = {}
def add(file):
    for one in file.dependencies:
        add(one)
    files.setdefault(file.name, descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb))
add(trace_service_pb2.DESCRIPTOR)
sys.stdout.buffer.write(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())
`;

export async function startCollector(): Promise<Collector> {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, execFileSync('.venv/bin/python', ['-c', DESCRIPTORS])));
  const schema = registry.getMessage(REQUEST);
  if (!schema) throw new Error(`there is no ${REQUEST}`);
  const decode = (encoding: string | undefined, body: Buffer): Json =>
    toJson(schema, fromBinary(schema, encoding === 'gzip' ? gunzipSync(body) : body), { useProtoFieldName: true });
  const spans: Span[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      if (request.url === '/v1/traces') spans.push(...spansOf(decode(request.headers['content-encoding'], Buffer.concat(chunks))));
      response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

const idOf = (bytes = ''): string => Buffer.from(bytes, 'base64').toString('hex');

const attributesOf = (list: Json[] = []): Record<string, string> =>
  Object.fromEntries(list.map(({ key, value }) => [key, String(Object.values(value)[0])]));

const spansOf = ({ resource_spans = [] }: Json): Span[] =>
  resource_spans.flatMap(({ resource, scope_spans }: Json) =>
    scope_spans.flatMap(({ spans }: Json) =>
      spans.map((span: Json) => ({
        service: attributesOf(resource.attributes)['service.name'],
        name: span.name,
        kind: span.kind,
        trace: idOf(span.trace_id),
        id: idOf(span.span_id),
        parent: idOf(span.parent_span_id),
        attributes: attributesOf(span.attributes),
        links: (span.links ?? []).map((link: Json) => idOf(link.trace_id)),
      })),
    ),
  );
