// While a process starts, its port is open and not everything is served yet: whoever calls hears that he may call again, and not that there is no
// such method, which no client repeats.
import type { handleUnaryCall, Server, ServerDuplexStream } from '@grpc/grpc-js';
import type { Contract } from './contract.ts';
import { unavailable } from './errors.ts';
import { toStatus } from './status.ts';

export interface Starting {
  serves(path: string): void; // it is about to be served
  over(): void; // what is not served by now is not here
}

const AGAIN_MS = 500;
const asItIs = (bytes: Buffer): Buffer => bytes;

export function openStarting(raw: Server, contract: Contract): Starting {
  const waiting = new Set(contract.methods.keys());
  const refusal = () => toStatus(unavailable('the server starts; call again', AGAIN_MS));
  const answer: handleUnaryCall<Buffer, Buffer> = (_call, done) => done(refusal());
  const end = (call: ServerDuplexStream<Buffer, Buffer>) => void call.emit('error', refusal());
  for (const { path, desc } of contract.methods.values()) {
    const isUnary = desc.methodKind === 'unary';
    raw.register(path, (isUnary ? answer : end) as never, asItIs, asItIs, isUnary ? 'unary' : 'bidi');
  }
  const forget = (path: string) => waiting.delete(path) && raw.unregister(path);
  return {
    serves: forget,
    over: () => waiting.forEach(forget),
  };
}
