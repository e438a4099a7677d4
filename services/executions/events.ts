// What the area publishes: many executions in one event, but no event larger than a broker takes.
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionEvent, type ExecutionEvent_Item } from '#gen/millrace/executions/v1/execution_event.ts';
import type { Event } from '#platform/outbox.ts';

const MAX_BYTES = 512 * 1024; // NATS takes 1 MiB unless told otherwise
const MAX_OUTPUT_BYTES = 16 * 1024;

export interface Told {
  execution: Execution;
  workspaceId: string;
}

export const created = (told: readonly Told[]): Event[] => eventsOf('created', told);
export const ended = (told: readonly Told[]): Event[] => eventsOf('ended', told);

// A message with a repeated field is the concatenation of messages with one element each.
function eventsOf(verb: 'created' | 'ended', told: readonly Told[]): Event[] {
  const events: Event[] = [];
  let parts: Uint8Array[] = [];
  let first: Told | undefined;
  let bytes = 0;
  const flush = () => {
    if (first) events.push(event(verb, first, Buffer.concat(parts)));
    parts = [];
    first = undefined;
    bytes = 0;
  };
  for (const one of told) {
    const part = ExecutionEvent.encode({ items: [itemOf(one)] }).finish();
    if (bytes + part.length > MAX_BYTES) flush();
    first ??= one;
    parts.push(part);
    bytes += part.length;
  }
  flush();
  return events;
}

function itemOf({ execution, workspaceId }: Told): ExecutionEvent_Item {
  const isBig = execution.output !== undefined && Buffer.byteLength(JSON.stringify(execution.output)) > MAX_OUTPUT_BYTES;
  return { execution: { ...execution, input: undefined, output: isBig ? undefined : execution.output }, workspaceId };
}

// The event is about many: its subject is the first one's id, and each item carries its own workspace and version.
const event = (verb: 'created' | 'ended', { execution }: Told, data: Uint8Array): Event => ({
  type: `execution.${verb}`,
  verb,
  subject: execution.id,
  workspace: '',
  version: execution.version,
  schema: 'millrace.executions.v1.ExecutionEvent',
  data,
});
