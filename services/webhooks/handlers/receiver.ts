// handlers/receiver.ts: ReceiverService: reads a request as it came through the edge and writes the answer as JSON.
import type { ReceiverServiceService } from '#gen/millrace/webhooks/v1/receiver_service.ts';
import type { Call, Handlers } from '#platform/handlers.ts';
import type { Intake } from '../intake.ts';
import { headersOf } from '../request.ts';

const JSON_TYPE = 'application/json';

export const handlers = ({ receive }: Intake): Handlers<ReceiverServiceService> => ({
  async receiveHook({ id, body }, call) {
    const { metadata, signal } = call;
    const path = text(metadata.get('x-envoy-original-path')[0]);
    const contentType = body?.contentType ?? '';
    const request = {
      method: text(metadata.get('x-envoy-original-method')[0]) || 'POST',
      headers: headersOf(metadata.getMap(), contentType),
      query: path.includes('?') ? path.slice(path.indexOf('?') + 1) : '',
      contentType,
      body: body?.data ?? Buffer.alloc(0),
    };
    const { code, answer } = await receive(id, request, addressOf(call), signal);
    call.respond.set('x-http-code', String(code));
    call.respond.set('cache-control', 'no-store');
    return { contentType: JSON_TYPE, data: Buffer.from(JSON.stringify(answer)), extensions: [] };
  },
});

const text = (value: unknown): string => (value === undefined ? '' : String(value));

// The edge names an address of the internet by itself; of an inner network it appends it to what the caller wrote.
function addressOf({ metadata, peer }: Call): string {
  const last = text(metadata.get('x-forwarded-for').at(-1)).split(',').at(-1)?.trim();
  return text(metadata.get('x-envoy-external-address')[0]) || last || peer;
}
