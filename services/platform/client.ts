// Clients of other areas: typed by ts-proto's definitions, always with a deadline and a token of the calling service.
import { type CallOptions, Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import type { Contract, Method } from './contract.ts';
import { Fault } from './errors.ts';
import type { Definition, RequestOf, ResponseOf } from './handlers.ts';
import type { Actor } from './service-token.ts';
import { fromServiceError } from './status.ts';

export interface ClientOptions {
  actor?: Actor; // the user that the call is made for
  signal?: AbortSignal;
  deadlineMs?: number; // else the contract's
  requestId?: string;
}
export type ClientOf<D> = {
  [M in keyof D]: D[M] extends { requestStream: true }
    ? (requests: AsyncIterable<RequestOf<D[M]>>, options?: ClientOptions) => AsyncIterable<ResponseOf<D[M]>>
    : D[M] extends { responseStream: true }
      ? (request: RequestOf<D[M]>, options?: ClientOptions) => AsyncIterable<ResponseOf<D[M]>>
      : (request: RequestOf<D[M]>, options?: ClientOptions) => Promise<ResponseOf<D[M]>>;
};
export interface Dialer {
  client<D extends Definition>(definition: D, address: string): ClientOf<D>;
  channels(): number; // that are open
  close(): void;
}
interface Options {
  contract: Contract;
  sign: (area: string, actor?: Actor) => Promise<string>;
  idleMs?: number; // how long a channel without calls is kept
}
interface Channel {
  client: Client;
  calls: number; // that are under way
  unused: NodeJS.Timeout | undefined;
}

const IDLE_MS = 5 * 60_000; // a server that has gone for good is not dialled for ever
const MAX_MESSAGE = 32 * 1024 * 1024; // as the server

// biome-ignore lint/suspicious/noExplicitAny: messages of any method
type Any = any;

export function openDialer({ contract, sign, idleMs = IDLE_MS }: Options): Dialer {
  const channels = new Map<string, Channel>();

  // For one call. Whoever dials releases the channel when the call has ended.
  function dial(address: string): { client: Client; release(): void } {
    const channel = channels.get(address) ?? { client: connectTo(address), calls: 0, unused: undefined };
    channels.set(address, channel);
    clearTimeout(channel.unused);
    channel.calls += 1;
    const release = () => {
      channel.calls -= 1;
      if (channel.calls === 0) channel.unused = setTimeout(forget, idleMs, address, channel).unref();
    };
    return { client: channel.client, release };
  }

  function forget(address: string, channel: Channel): void {
    if (channels.get(address) === channel) channels.delete(address);
    channel.client.close();
  }

  function connectTo(address: string): Client {
    return new Client(address.includes('//') ? address : `dns:///${address}`, credentials.createInsecure(), {
      'grpc.service_config': serviceConfig(contract),
      'grpc.max_receive_message_length': MAX_MESSAGE,
      'grpc.max_send_message_length': MAX_MESSAGE,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
      'grpc.enable_channelz': 0,
    });
  }

  async function prepare(method: Method, options: ClientOptions): Promise<[Metadata, CallOptions]> {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${await sign(method.area, options.actor)}`);
    if (options.requestId) metadata.set('idempotency-key', options.requestId);
    const ms = options.deadlineMs ?? method.deadlineMs;
    return [metadata, ms > 0 ? { deadline: Date.now() + ms } : {}];
  }

  return {
    client(definition, address) {
      const made: Record<string, Any> = {};
      for (const [name, entry] of Object.entries(definition)) {
        const method = contract.methods.get(entry.path);
        if (!method) throw new Error(`${entry.path} has no policy in the image: run make gen`);
        const { path, requestSerialize: write, responseDeserialize: read } = entry;
        if (entry.responseStream) {
          made[name] = async function* (request: Any, options: ClientOptions = {}) {
            const [metadata, settings] = await prepare(method, options);
            const { client, release } = dial(address);
            let fault: unknown; // of the requests themselves
            try {
              const call = entry.requestStream
                ? client.makeBidiStreamRequest(path, write, read, metadata, settings)
                : client.makeServerStreamRequest(path, write, read, request, metadata, settings);
              if (entry.requestStream) {
                send(call as Any, request).catch((error) => {
                  fault = error;
                  call.cancel();
                });
              }
              yield* receive(call as Any, options.signal); // once the server has ended the call nothing more can be sent
            } catch (error) {
              throw fault ?? error;
            } finally {
              release();
            }
          };
        } else {
          made[name] = async (request: Any, options: ClientOptions = {}) => {
            const [metadata, settings] = await prepare(method, options);
            const { client, release } = dial(address);
            return new Promise((resolve, reject) => {
              const call = client.makeUnaryRequest(path, write, read, request, metadata, settings, (error, response) =>
                error ? reject(fromServiceError(error)) : resolve(response),
              );
              options.signal?.addEventListener('abort', () => call.cancel(), { once: true });
            }).finally(release);
          };
        }
      }
      return made as never;
    },
    channels: () => channels.size,
    close() {
      for (const [address, channel] of channels) {
        clearTimeout(channel.unused);
        forget(address, channel);
      }
    },
  };
}

async function* receive(
  call: AsyncIterable<unknown> & { cancel(): void; on(event: 'error', listener: () => void): void },
  signal: AbortSignal | undefined,
) {
  const cancel = () => call.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  call.on('error', () => undefined); // the iterator reports it; without a listener a late one would end the process
  try {
    if (signal?.aborted) return;
    yield* call;
  } catch (error) {
    if (signal?.aborted) return;
    throw isServiceError(error) ? fromServiceError(error) : error;
  } finally {
    signal?.removeEventListener('abort', cancel);
    cancel();
  }
}

async function send(
  call: { write(message: unknown): boolean; end(): void; once(event: string, listener: () => void): void },
  requests: AsyncIterable<unknown>,
) {
  for await (const request of requests) {
    if (!call.write(request)) {
      await new Promise<void>((resolve) => {
        call.once('drain', resolve);
        call.once('close', resolve);
      });
    }
  }
  call.end();
}

const isServiceError = (error: unknown): error is ServiceError =>
  !(error instanceof Fault) && typeof (error as ServiceError)?.code === 'number' && (error as ServiceError).code in status;

// Calls are repeated by the transport only where the contract says that it does no harm.
function serviceConfig(contract: Contract): string {
  const name = [...contract.methods.values()]
    .filter((method) => method.isRead || method.idempotency === 'NATURAL')
    .map((method) => ({ service: method.service, method: method.name }));
  const retryPolicy = {
    maxAttempts: 4,
    initialBackoff: '0.1s',
    maxBackoff: '1s',
    backoffMultiplier: 2,
    retryableStatusCodes: ['UNAVAILABLE'],
  };
  return JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }], methodConfig: [{ name, retryPolicy }] });
}
