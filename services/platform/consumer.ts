// Consumes events: durable, at least once from the broker, exactly once into the database by an inbox row in the handler's transaction.
// What fails ten times becomes a dead letter.
import { AckPolicy, type ConsumerConfig, DeliverPolicy, type JetStreamManager, type JsMsg } from '@nats-io/jetstream';
import { propagation, ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api';
import { type Bus, eventsStream } from './bus.ts';
import type { Db, Tx } from './db.ts';
import { toBytes } from './id.ts';
import type { Logger } from './log.ts';
import { counter } from './metrics.ts';
import { pause } from './pause.ts';

export interface ReceivedEvent {
  id: string;
  type: string;
  subject: string;
  workspace: string;
  version: number;
  schema: string;
  time: Date;
  data: Uint8Array;
}
export interface Consumer {
  name: string; // the durable's name: tasks-executions
  area: string; // whose events
  types?: readonly string[]; // CloudEvents types; all when absent
  db: Db;
  concerns?(event: ReceivedEvent): boolean; // false: the event is passed over without a look at the database
  prepare?(event: ReceivedEvent): Promise<unknown>; // work that needs no transaction, such as calls; its answer is given to handle
  handle(tx: Tx, event: ReceivedEvent, prepared: unknown): Promise<void>;
}

const FAILURES = 10;
const NO_CONSUMER = 10_014; // JSConsumerNotFoundErr
const ACK_WAIT_NS = 30e9;
const taken = counter('millrace_events_consumed_total', 'Events taken in', ['consumer', 'outcome']);

export function consume(bus: Bus, log: Logger, consumer: Consumer): () => Promise<void> {
  const stopped = new AbortController();
  let pull: { close(): Promise<unknown> } | undefined;

  async function take(message: JsMsg): Promise<void> {
    const event = eventOf(message);
    const parent = propagation.extract(ROOT_CONTEXT, { traceparent: message.headers?.get('traceparent') });
    const attributes = { 'messaging.system': 'nats', 'messaging.consumer.group.name': consumer.name, 'messaging.message.id': event.id };
    try {
      if (!isWanted(consumer, event)) return message.ack();
      await trace
        .getTracer('millrace')
        .startActiveSpan(`take ${event.type}`, { kind: SpanKind.CONSUMER, attributes }, parent, (span) =>
          intake(consumer, event).finally(() => span.end()),
        );
      taken.inc({ consumer: consumer.name, outcome: 'ok' });
      message.ack();
    } catch (error) {
      taken.inc({ consumer: consumer.name, outcome: 'failed' });
      log.warn({ error, consumer: consumer.name, event: event.id, failures: message.info.deliveryCount }, 'an event could not be taken in');
      if (message.info.deliveryCount < FAILURES) return message.nak(Math.min(30_000, 200 * 2 ** message.info.deliveryCount));
      await bury(consumer, event, message.info.deliveryCount, error);
      taken.inc({ consumer: consumer.name, outcome: 'dead' });
      message.term('dead letter');
    }
  }

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      try {
        await bus.ensureEvents();
        const { js, jsm } = await bus.jetstream();
        await ensureConsumer(jsm, eventsStream(bus.prefix), {
          durable_name: consumer.name,
          filter_subjects: subjectsOf(bus.prefix, consumer),
          ack_policy: AckPolicy.Explicit,
          deliver_policy: DeliverPolicy.All,
          ack_wait: ACK_WAIT_NS,
          max_deliver: -1,
        });
        const messages = await (await js.consumers.get(eventsStream(bus.prefix), consumer.name)).consume({
          max_messages: 50,
          idle_heartbeat: 1000,
          expires: 10_000,
        });
        pull = messages;
        void endWhenGone(messages);
        for await (const message of messages) await take(message);
      } catch (error) {
        if (stopped.signal.aborted) return;
        log.debug({ error, consumer: consumer.name }, 'waiting for the stream of events');
      }
      await pause(300, stopped.signal);
    }
  }
  const running = run();
  return async () => {
    stopped.abort();
    await pull?.close();
    await Promise.race([running, pause(3000)]);
  };
}

// A stream whose description was lost in a power cut is made anew with the messages that are there, and numbers the next ones as some that are not.
// Its consumer then has the state of the one before it, and passes those over. A new one has no past: it is made once more, without that state.
async function ensureConsumer(
  jsm: JetStreamManager,
  stream: string,
  config: Partial<ConsumerConfig> & { durable_name: string },
): Promise<void> {
  const isThere = await jsm.consumers.info(stream, config.durable_name).then(
    () => true,
    (error: { code?: number }) => {
      if (error.code === NO_CONSUMER) return false;
      throw error;
    },
  );
  const { delivered } = await jsm.consumers.add(stream, config);
  if (isThere || delivered.consumer_seq === 0) return;
  await jsm.consumers.delete(stream, config.durable_name);
  await jsm.consumers.add(stream, config);
}

// A wiped broker has neither stream nor consumer: the pull is ended so that both are made again.
async function endWhenGone(messages: { status(): AsyncIterable<{ type: string; count?: number }>; stop(): void }): Promise<void> {
  for await (const { type, count } of messages.status()) {
    if (
      ['stream_not_found', 'consumer_not_found', 'consumer_deleted', 'no_responders'].includes(type) ||
      (type === 'heartbeats_missed' && (count ?? 0) >= 3)
    ) {
      return messages.stop();
    }
  }
}

// An event's type ends with the verb that its subject ends with: the broker keeps back what is of another type.
const subjectsOf = (prefix: string, { area, types }: Consumer): string[] =>
  types ? types.map((type) => `${prefix}.events.${area}.*.${type.split('.').at(-1)}`) : [`${prefix}.events.${area}.>`];

const isWanted = ({ types, concerns }: Consumer, event: ReceivedEvent): boolean =>
  (!types || types.includes(event.type)) && (concerns?.(event) ?? true);

// `first` says in the same transaction whether to go on.
export async function intake(consumer: Consumer, event: ReceivedEvent, first?: (tx: Tx) => Promise<boolean>): Promise<void> {
  const prepared = await consumer.prepare?.(event);
  await consumer.db.transaction(async (tx) => {
    if (first && !(await first(tx))) return;
    const row = { consumer: consumer.name, event: toBytes('event', event.id), create_time: tx.raw('NOW(6)') };
    // mysql2 asks for found rows, so ON DUPLICATE KEY UPDATE would count a duplicate as well
    const [{ affectedRows }] = await tx.raw(
      tx('inbox')
        .insert(row)
        .toQuery()
        .replace(/^insert/i, 'INSERT IGNORE'),
    );
    if (affectedRows === 1) await consumer.handle(tx, event, prepared);
  });
}

// What went wrong, without the statement and its values where the database refused one.
export function reasonOf(error: unknown): string {
  const { sqlMessage, message } = (error ?? {}) as { sqlMessage?: string; message?: string };
  return (sqlMessage ?? message ?? 'unknown').slice(0, 2000);
}

// A dead letter: dead-letter.ts shows it and hands it over again.
export async function bury(consumer: Consumer, event: ReceivedEvent, failures: number, error: unknown): Promise<void> {
  await consumer
    .db('dead_letters')
    .insert({
      consumer: consumer.name,
      event: toBytes('event', event.id),
      type: event.type,
      subject: event.subject,
      workspace: event.workspace,
      data_schema: event.schema,
      data: Buffer.from(event.data),
      version: event.version,
      event_time: Number.isNaN(event.time.getTime()) ? null : event.time,
      failures,
      error: reasonOf(error),
      create_time: consumer.db.raw('NOW(6)'),
    })
    .onConflict(['consumer', 'event'])
    .merge();
}

function eventOf(message: JsMsg): ReceivedEvent {
  const get = (name: string) => message.headers?.get(name) ?? '';
  return {
    id: get('ce-id'),
    type: get('ce-type'),
    subject: get('ce-subject'),
    workspace: get('ce-workspace'),
    version: Number(get('ce-version')),
    schema: get('ce-dataschema'),
    time: new Date(get('ce-time')),
    data: message.data,
  };
}
