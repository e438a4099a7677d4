// Calls as clients make them: REST by plain HTTP, so that paths and headers go out as written, and gRPC.
import { type Agent, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { type Client, Metadata, type MethodDefinition, type ServiceError } from '@grpc/grpc-js';

// biome-ignore lint/suspicious/noExplicitAny: messages of any method
type Any = any;
export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
  json: Any;
}
export interface Ask {
  token?: string;
  headers?: Record<string, string | string[]>;
  body?: unknown; // a string or bytes go as they are, anything else as JSON
  agent?: Agent;
}
export function metadataOf(token: string | undefined, headers: Record<string, string> = {}): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(headers)) metadata.set(key, value);
  if (token) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

export const callUnary = <Q, R>(client: Client, definition: MethodDefinition<Q, R>, request: Q, metadata: Metadata): Promise<R> =>
  new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      definition.path,
      definition.requestSerialize,
      definition.responseDeserialize,
      request,
      metadata,
      (error, response) => (error || response === undefined ? reject(error) : resolve(response)),
    );
  });

export async function streamed<Q, R>(client: Client, definition: MethodDefinition<Q, R>, request: Q, metadata: Metadata): Promise<R[]> {
  const { path, requestSerialize, responseDeserialize } = definition;
  const messages: R[] = [];
  for await (const message of client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, metadata))
    messages.push(message);
  return messages;
}

export const refused = (work: Promise<unknown>): Promise<ServiceError> =>
  work.then(
    (answer) => {
      throw new Error(`it was not refused: ${JSON.stringify(answer)}`);
    },
    (error) => error as ServiceError,
  );

export function open(at: object, verb: string, path: string, { token, headers = {}, body, agent }: Ask): Promise<IncomingMessage> {
  const bytes = body === undefined || typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  const length = bytes === undefined ? {} : { 'content-length': String(Buffer.byteLength(bytes)) };
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { ...at, method: verb, path, headers: { ...authorization, ...length, ...headers }, ...(agent ? { agent } : {}) },
      resolve,
    );
    request.on('error', reject);
    request.end(bytes);
  });
}

export async function ask(at: object, verb: string, path: string, given: Ask): Promise<Reply> {
  const response = await open(at, verb, path, given);
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString('utf8');
  return { status: response.statusCode ?? 0, headers: response.headers, body, json: parsed(body) };
}

function parsed(body: string): Any {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

export async function until<T>(what: string, probe: () => Promise<T> | T, patienceMs = 10_000): Promise<NonNullable<T>> {
  const end = performance.now() + patienceMs;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (performance.now() > end) throw new Error(`waited ${patienceMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
