// A gRPC server that answers every method of the contract, internal ones too, and keeps what it got.
import {
  type Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import { HealthService, HealthCheckResponse_ServingStatus as Serving } from '#gen/grpc/health/v1/health.ts';
import type { Contract, Method } from '#platform/contract.ts';
import { metadataOf } from './calls.ts';

export interface Seen {
  path: string;
  metadata: Metadata;
  deadline: number;
  cancelled: boolean;
  request: Buffer;
  respond: Record<string, string>; // initial metadata to answer with
}
export interface Backend {
  address: string;
  seen: Seen[];
  isServing: boolean; // what it says of its health
  // A handler throws a status to fail.
  unary<Q, R>(definition: MethodDefinition<Q, R>, answer: (request: Q, seen: Seen) => R | Promise<R>): void;
  stream<Q, R>(definition: MethodDefinition<Q, R>, answer: (request: Q, send: (message: R) => void, seen: Seen) => Promise<void>): void;
  stop(): Promise<void>;
}
// biome-ignore lint/suspicious/noExplicitAny: messages of any method
type Any = any;

export async function startBackend(contract: Contract, address = '127.0.0.1:0'): Promise<Backend> {
  const server = new Server();
  const seen: Seen[] = [];
  const unaries = new Map<string, (one: Seen) => Promise<Buffer>>();
  const streams = new Map<string, (one: Seen, send: (bytes: Buffer) => void) => Promise<void>>();
  const note = (path: string, call: ServerUnaryCall<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>): Seen => {
    const deadline = Number(call.getDeadline());
    const one: Seen = { path, metadata: call.metadata, deadline, cancelled: false, request: call.request, respond: {} };
    call.on('cancelled', () => {
      one.cancelled = true;
    });
    seen.push(one);
    return one;
  };
  const handlerOf = ({ path, isStream }: Method) =>
    isStream
      ? async (call: ServerWritableStream<Buffer, Buffer>) => {
          call.on('error', () => undefined);
          const one = note(path, call);
          try {
            await streams.get(path)?.(one, (bytes) => call.write(bytes));
            call.end();
          } catch (error) {
            call.emit('error', error);
          }
        }
      : async (call: ServerUnaryCall<Buffer, Buffer>, callback: (error: Any, message?: Buffer) => void) => {
          const one = note(path, call);
          try {
            const message = (await unaries.get(path)?.(one)) ?? Buffer.alloc(0);
            call.sendMetadata(metadataOf(undefined, one.respond));
            callback(null, message);
          } catch (error) {
            callback(error);
          }
        };
  for (const method of contract.methods.values())
    server.addService({ [method.name]: raw(method) } as Any, { [method.name]: handlerOf(method) as Any });
  server.addService(HealthService, {
    check: (call: ServerUnaryCall<Buffer, Buffer>, callback: (error: null, message: unknown) => void) => {
      if (call.metadata.get('x-millrace-edge').length > 0) note('/grpc.health.v1.Health/Check', call);
      callback(null, { status: backend.isServing ? Serving.SERVING : Serving.NOT_SERVING });
    },
    watch: (call: ServerWritableStream<unknown, unknown>) => call.end(),
    list: (_call: unknown, callback: (error: null, message: unknown) => void) => callback(null, { statuses: {} }),
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  const backend: Backend = {
    isServing: true,
    address: `127.0.0.1:${port}`,
    seen,
    unary({ path, requestDeserialize, responseSerialize }, answer) {
      unaries.set(path, async (one) => responseSerialize(await answer(requestDeserialize(one.request), one)));
    },
    stream({ path, requestDeserialize, responseSerialize }, answer) {
      streams.set(path, (one, send) => answer(requestDeserialize(one.request), (message) => send(responseSerialize(message)), one));
    },
    stop: async () => server.forceShutdown(),
  };
  return backend;
}

const same = (bytes: Buffer): Buffer => bytes;
const raw = ({ path, isStream, desc }: Method) => ({
  path,
  requestStream: desc.methodKind === 'bidi_streaming' || desc.methodKind === 'client_streaming',
  responseStream: isStream,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
});
