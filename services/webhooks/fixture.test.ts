// Senders of requests to hooks, for tests: gRPC as the edge makes it of a REST call.
import { createHmac } from 'node:crypto';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { ReceiverServiceService } from '#gen/millrace/webhooks/v1/receiver_service.ts';
import { fromServiceError } from '#platform/status.ts';
import type { World } from '../../tests/world.ts';

// biome-ignore lint/suspicious/noExplicitAny: JSON as it comes
type Json = any;
export interface Sent {
  code: number;
  answer: Json;
}

// Rejects with a Fault.
export function send(
  world: Pick<World, 'grpcAddress'>,
  id: string,
  body: string | Buffer,
  headers: Record<string, string> = {},
  contentType = 'application/json',
): Promise<Sent> {
  const client = new Client(world.grpcAddress, credentials.createInsecure());
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const { path, requestSerialize, responseDeserialize } = ReceiverServiceService.receiveHook;
  return new Promise<Sent>((resolve, reject) => {
    let code = 200;
    const request = { id, body: { contentType, data: Buffer.from(body), extensions: [] } };
    client
      .makeUnaryRequest(path, requestSerialize, responseDeserialize, request, metadata, {}, (error, response) => {
        if (error || !response) reject(error ? fromServiceError(error) : new Error('no answer'));
        else resolve({ code, answer: JSON.parse(response.data.toString()) });
      })
      .on('metadata', (initial) => {
        code = Number(initial.get('x-http-code')[0] ?? 200);
      });
  }).finally(() => client.close());
}

// Standard Webhooks, as a sender makes it.
export function standard(secret: string, id: string, body: string | Buffer, at = Date.now()): Record<string, string> {
  const time = `${Math.floor(at / 1000)}`;
  const sum = createHmac('sha256', Buffer.from(secret.replace('whsec_', ''), 'base64'))
    .update(`${id}.${time}.`)
    .update(body)
    .digest('base64');
  return { 'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': `v1,${sum}` };
}
