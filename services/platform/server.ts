// A gRPC server that enforces the contract: who calls, what they may, what they send, how long it may take; and tells every fault in one vocabulary.
import { createHash } from 'node:crypto';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js';
import type { Authenticate } from './auth.ts';
import type { Contract, Method } from './contract.ts';
import { Fault, fault, unavailable } from './errors.ts';
import { faultOf } from './faults.ts';
import type { Call, Caller, Definition, Handlers } from './handlers.ts';
import type { Logger } from './log.ts';
import { counter, gauge, histogram } from './metrics.ts';
import { createdAt, HTTP_CODE } from './rest.ts';
import { openStarting } from './starting.ts';
import { toStatus } from './status.ts';
import type { Validator } from './validate.ts';

const handled = counter('millrace_rpc_handled_total', 'Calls answered', ['method', 'code']);
const duration = histogram('millrace_rpc_duration_seconds', 'How long unary calls took', ['method']);
const openStreams = gauge('millrace_rpc_streams_open', 'Server streams that are open', ['method']);

const MAX_MESSAGE = 32 * 1024 * 1024; // 4 MiB of JSON, the edge's limit, can be many times that as a message: numbers in a Struct
const STOP_MS = 10_000;
const GONE = new Error('the caller has gone'); // a reason of its own would be made for every call, with a stack

// biome-ignore lint/suspicious/noExplicitAny: requests and responses of any method
type Any = any;
interface Received {
  bytes: Buffer;
  message: Any;
}
type Raw = ServerUnaryCall<Received, Any> | ServerWritableStream<Received, Any> | ServerDuplexStream<Received, Any>;

export interface RpcServer {
  add<D extends Definition>(definition: D, handlers: Handlers<D>): void;
  raw: Server;
  listen(address: string): Promise<string>; // host:port as bound
  started(): void; // everything that is served has been added
  stop(): Promise<void>; // answers what runs, ends streams, then closes
}
interface Options {
  contract: Contract;
  validator: Validator;
  authenticate: Authenticate;
  log: Logger;
}

export function openServer({ contract, validator, authenticate, log }: Options): RpcServer {
  const raw = new Server({
    'grpc.max_receive_message_length': MAX_MESSAGE,
    'grpc.max_send_message_length': MAX_MESSAGE,
    'grpc.keepalive_time_ms': 20_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.enable_channelz': 0, // nobody asks for its figures, and each call would pay for them
  });
  const starting = openStarting(raw, contract);
  const stopping = new AbortController();

  async function admit(method: Method, incoming: Raw, request: Received | undefined): Promise<Call> {
    const caller = await authenticate(method, incoming.metadata);
    if (request) checked(method, request);
    return callOf(method, incoming, caller, request);
  }

  function checked(method: Method, request: Received): Any {
    if (request.message instanceof Error) throw fault('INVALID_ARGUMENT', 'FIELD_INVALID', `the request is not a ${method.input.typeName}`);
    validator.check(method, request.bytes);
    return request.message;
  }

  function callOf(method: Method, incoming: Raw, caller: Caller, request: Received | undefined): Call {
    const gone = new AbortController();
    (incoming as ServerUnaryCall<Received, Any>).on('cancelled', () => gone.abort(GONE));
    const requestId = request?.message.requestId || String(incoming.metadata.get('idempotency-key')[0] ?? '');
    if (requestId.length > 128) throw fault('INVALID_ARGUMENT', 'FIELD_INVALID', 'the idempotency key is longer than 128 characters');
    const deadline = incoming.getDeadline();
    const at = typeof deadline === 'number' ? deadline : deadline.getTime();
    let signal: AbortSignal | undefined; // made for whoever asks for it: most calls do not
    return {
      caller,
      get signal() {
        signal ??= AbortSignal.any([gone.signal, stopping.signal]);
        return signal;
      },
      requestId,
      get requestHash() {
        return request ? validator.hash(method, request.bytes) : createHash('sha256').digest();
      },
      get log() {
        return log.child({ method: method.path, user: caller.user || undefined, service: caller.service });
      },
      method: method.path,
      peer: String(incoming.metadata.get('x-envoy-external-address')[0] ?? incoming.getPeer()),
      metadata: incoming.metadata,
      respond: new Metadata(),
      ...(Number.isFinite(at) ? { deadline: new Date(at) } : {}),
    };
  }

  const told = (method: Method, error: unknown) => {
    const known = faultOf(error);
    if (known.code === status.INTERNAL) log.error({ error, method: method.path }, 'a call failed unexpectedly');
    handled.inc({ method: method.path, code: status[known.code] });
    return toStatus(known);
  };

  const unary =
    (method: Method, handler: (request: Any, call: Call) => Promise<Any>) =>
    async (incoming: ServerUnaryCall<Received, Any>, callback: Any) => {
      const done = duration.startTimer({ method: method.path });
      try {
        const call = await admit(method, incoming, incoming.request);
        const response = await withDeadline(method, handler(incoming.request.message, call));
        const location = createdAt(method, incoming.request.message, response);
        if (location) {
          call.respond.set(HTTP_CODE, '201');
          call.respond.set('location', location);
        } else if (method.bindings[0]?.verb === 'DELETE') call.respond.set(HTTP_CODE, '204');
        incoming.sendMetadata(call.respond);
        handled.inc({ method: method.path, code: 'OK' });
        callback(null, response);
      } catch (error) {
        callback(told(method, error));
      }
      done();
    };

  const stream =
    (method: Method, handler: (request: Any, call: Call) => AsyncIterable<Any>) =>
    async (incoming: ServerWritableStream<Received, Any> | ServerDuplexStream<Received, Any>) => {
      openStreams.inc({ method: method.path });
      const isDuplex = method.desc.methodKind === 'bidi_streaming';
      try {
        const call = await admit(method, incoming, isDuplex ? undefined : (incoming as ServerWritableStream<Received, Any>).request);
        const request = isDuplex
          ? each(method, incoming as ServerDuplexStream<Received, Any>)
          : (incoming as ServerWritableStream<Received, Any>).request.message;
        let isFirst = true;
        for await (const frame of handler(request, call)) {
          if (incoming.cancelled) break;
          if (isFirst) incoming.sendMetadata(call.respond); // not earlier: a fault before the first frame must be able to answer as one
          isFirst = false;
          if (!incoming.write(frame)) await drained(incoming);
        }
        handled.inc({ method: method.path, code: 'OK' });
        incoming.end();
      } catch (error) {
        incoming.emit('error', told(method, error));
      }
      openStreams.dec({ method: method.path });
    };

  // A handler that reads no further must still be able to answer: so the stream is not destroyed.
  async function* each(method: Method, incoming: ServerDuplexStream<Received, Any>): AsyncGenerator<Any> {
    for await (const request of incoming.iterator({ destroyOnReturn: false })) yield checked(method, request as Received);
  }

  return {
    raw,
    add(definition, handlers) {
      const wrapped: Record<string, Any> = {};
      const own: Definition = {};
      for (const [name, entry] of Object.entries(definition)) {
        const method = contract.methods.get(entry.path);
        if (!method) throw new Error(`${entry.path} has no policy in the image: run make gen`);
        starting.serves(entry.path);
        own[name] = {
          ...entry,
          requestDeserialize: (bytes: Buffer) => ({ bytes, message: attempt(() => entry.requestDeserialize(bytes)) }),
        };
        wrapped[name] = (entry.responseStream ? stream : unary)(method, handlers[name as keyof typeof handlers] as Any);
      }
      raw.addService(own, wrapped as never);
    },
    listen: (address) =>
      new Promise((resolve, reject) => {
        raw.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
          if (error) return reject(new Error(`gRPC cannot listen on ${address}: ${error.message}`));
          resolve(`${address.slice(0, address.lastIndexOf(':'))}:${port}`);
        });
      }),
    started: starting.over,
    async stop() {
      stopping.abort(unavailable('the server stops; call again', 500));
      const closed = new Promise<void>((resolve) => raw.tryShutdown(() => resolve()));
      const timer = setTimeout(() => raw.forceShutdown(), STOP_MS);
      await closed;
      clearTimeout(timer);
    },
  };
}

function attempt(decode: () => Any): Any {
  try {
    return decode();
  } catch (error) {
    return error;
  }
}

// The contract's deadline holds although the caller may have named none.
function withDeadline<T>(method: Method, work: Promise<T>): Promise<T> {
  if (method.deadlineMs === 0) return work;
  return new Promise((resolve, reject) => {
    const late = () =>
      reject(new Fault('DEADLINE_EXCEEDED', 'DEPENDENCY_UNAVAILABLE', `${method.name} took longer than ${method.deadlineMs} ms`));
    const timer = setTimeout(late, method.deadlineMs);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

const drained = (incoming: ServerWritableStream<Received, Any> | ServerDuplexStream<Received, Any>): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      incoming.off('drain', done);
      incoming.off('cancelled', done);
      resolve();
    };
    incoming.once('drain', done);
    incoming.once('cancelled', done);
  });
