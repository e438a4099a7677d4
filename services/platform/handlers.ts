// The types of handlers, computed from ts-proto's service definitions: a missing method does not compile.
import type { Metadata, MethodDefinition } from '@grpc/grpc-js';
import type { Logger } from './log.ts';

export interface Caller {
  user: string; // usr_…, empty when nobody is signed in
  workspace: string; // wsp_…
  session: string; // ses_…, empty when a service acts for the user
  scopes: ReadonlySet<string>;
  service?: string; // the service that calls, for itself or for the user
}

export interface Call {
  caller: Caller;
  signal: AbortSignal; // aborts when the caller has gone; when the server stops its reason is a Fault with code UNAVAILABLE
  requestId: string; // the request_id field or the Idempotency-Key header; empty when there is none
  requestHash: Buffer; // SHA-256 of the request without its request_id and sensitive fields
  log: Logger;
  method: string; // /millrace.tasks.v1.TaskService/GetTask
  peer: string; // the caller's address as the edge saw it, else the connection's
  metadata: Metadata;
  respond: Metadata; // sent before the first message
  deadline?: Date;
}

// biome-ignore lint/suspicious/noExplicitAny: a definition may have any messages
export type Definition = Record<string, MethodDefinition<any, any>>;
export type RequestOf<M> = M extends { requestDeserialize: (bytes: Buffer) => infer Q } ? Q : never;
export type ResponseOf<M> = M extends { responseDeserialize: (bytes: Buffer) => infer R } ? R : never;
type Incoming<M> = M extends { requestStream: true } ? AsyncIterable<RequestOf<M>> : RequestOf<M>;

export type Handlers<D> = {
  [M in keyof D]: D[M] extends { responseStream: true }
    ? (request: Incoming<D[M]>, call: Call) => AsyncIterable<ResponseOf<D[M]>>
    : (request: Incoming<D[M]>, call: Call) => Promise<ResponseOf<D[M]>>;
};
