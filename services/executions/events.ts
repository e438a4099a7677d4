// What the area publishes: many executions in one event, but no event larger than a broker takes.
import type { Execution } from '#gen/millrace/executions/v1/execution.ts';
import { ExecutionEvent } from '#gen/millrace/executions/v1/execution_event.ts';
import type { Event } from '#platform/outbox.ts';

const MAX_BYTES = 512 * 1024; // NATS takes 1 MiB unless told otherwise
const MAX_OUTPUT_BYTES = 16 * 1024;

export interface Told {
  execution: Execution;
  workspaceId: string;
}

// One of them, as the bytes of an ExecutionEvent that is about it alone.
export interface Part {
  execution: Execution;
  bytes: Uint8Array;
  isWhole: boolean; // but for its input
}

export const created = (told: readonly Told[]): Event[] => eventsOf('created', told.map(partOf));
export const ended = (parts: readonly Part[]): Event[] => eventsOf('ended', parts);

// A message with a repeated field is the concatenation of messages with one element each.
function eventsOf(verb: 'created' | 'ended', all: readonly Part[]): Event[] {
  const events: Event[] = [];
  let parts: Uint8Array[] = [];
  let first: Part | undefined;
  let bytes = 0;
  const flush = () => {
    if (first) events.push(event(verb, first.execution, Buffer.concat(parts)));
    parts = [];
    first = undefined;
    bytes = 0;
  };
  for (const one of all) {
    if (bytes + one.bytes.length > MAX_BYTES) flush();
    first ??= one;
    parts.push(one.bytes);
    bytes += one.bytes.length;
  }
  flush();
  return events;
}

export function partOf({ execution, workspaceId }: Told): Part {
  const isBig = execution.output !== undefined && Buffer.byteLength(JSON.stringify(execution.output)) > MAX_OUTPUT_BYTES;
  const told = { ...execution, input: undefined, output: isBig ? undefined : execution.output };
  return { execution, bytes: ExecutionEvent.encode({ items: [{ execution: told, workspaceId }] }).finish(), isWhole: !isBig };
}

// What a notice said of an execution that was read before: its end, when it is told whole.
export function endIn(news: Uint8Array | undefined, read: Execution): Execution | undefined {
  if (!news?.length) return undefined;
  const told = ExecutionEvent.decode(news).items[0]?.execution;
  return told?.endTime && told.id === read.id && told.version > read.version ? { ...told, input: read.input } : undefined;
}

// The event is about many: its subject is the first one's id, and each item carries its own workspace and version.
const event = (verb: 'created' | 'ended', { id, version }: Execution, data: Uint8Array): Event => ({
  type: `execution.${verb}`,
  verb,
  subject: id,
  workspace: '',
  version,
  schema: 'millrace.executions.v1.ExecutionEvent',
  data,
});
