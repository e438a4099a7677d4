// Tickets: turns that JetStream hands out. A ticket names a lane, never an execution; one of a lane waits at a time and keeps its place.
// Tickets are disposable: a sweep rings every lane with work once a second.
import { AckPolicy, DiscardPolicy, type JetStreamManager, RetentionPolicy, StorageType } from '@nats-io/jetstream';
import { type Bus, ensureStream } from '#platform/bus.ts';
import { decodeFresh, encodeFresh, type Fresh } from './fresh.ts';
import * as notices from './notices.ts';

export const SELECTOR = 'any';
export const CONSUMER = 'any';
const ACK_WAIT_NS = 2e9;
const FEW = 8;
const STORE_MS = 1000;
const HAS_ONE = 'maximum messages per subject exceeded'; // the broker's words: the number of the error stands for more than that
const LOOKS = 5; // longer than a ticket waits for its acknowledgement before it is delivered again
const MAX_ACK_PENDING = 20_000;

export const workStream = (prefix: string): string => `${prefix}_WORK`;
const lanesOf = (prefix: string): string => `${prefix}.work.${SELECTOR}.`;

// Says that the lanes have work. A refused ticket is no error: the lane has one already. Never waits for the broker.
export function ring(bus: Pick<Bus, 'prefix' | 'state' | 'connection'>, lanes: Iterable<number>): void {
  const names = [...lanes];
  if (names.length === 0) return;
  bus
    .state()
    .then(() => bus.connection())
    .then((connection) => {
      for (const lane of names) connection.publish(`${lanesOf(bus.prefix)}${lane}`);
    })
    .catch(() => undefined); // the sweep rings again
}

// The same for one lane. Rejects unless the broker says in time that it has the lane's ticket; one whose disk was full says nothing at all.
export async function untilRung(bus: Pick<Bus, 'prefix' | 'connection'>, lane: number): Promise<void> {
  const answer = await (await bus.connection()).request(`${lanesOf(bus.prefix)}${lane}`, undefined, { timeout: STORE_MS });
  const { error } = answer.json<{ error?: { description: string } }>();
  if (error && error.description !== HAS_ONE) throw new Error(error.description);
}

// The same for work that came just now: a dispatcher that is idle starts it without waiting for the ticket, which under load alone decides.
// `fresh` is all of it, or nothing.
export function hurry(
  bus: Pick<Bus, 'prefix' | 'state' | 'connection' | 'notify'>,
  lanes: ReadonlySet<number>,
  fresh: readonly Fresh[] = [],
): void {
  const told = fresh.length > 0 && fresh.length <= FEW ? encodeFresh(fresh) : undefined;
  if (lanes.size > 0 && lanes.size <= FEW) bus.notify(notices.work, told ? `${[...lanes].join()}\n${told}` : [...lanes].join());
  ring(bus, lanes);
}

export function workOf(data: Uint8Array): { lanes: number[]; fresh: Fresh[] } {
  const [lanes = '', told] = `${Buffer.from(data)}`.split('\n', 2);
  return { lanes: lanes.split(',').map(Number).filter(Number.isSafeInteger), fresh: told ? decodeFresh(told) : [] };
}

export const laneOfTicket = (prefix: string, subject: string): number => Number(subject.slice(lanesOf(prefix).length));

// Makes the stream and its consumer when they are missing.
export async function ensureWork(jsm: JetStreamManager, prefix: string, replicas = 1): Promise<void> {
  await ensureStream(jsm, {
    name: workStream(prefix),
    subjects: [`${prefix}.work.>`],
    retention: RetentionPolicy.Workqueue,
    storage: StorageType.File,
    num_replicas: replicas,
    max_msgs_per_subject: 1,
    discard: DiscardPolicy.New, // a ticket that waits keeps its place
    discard_new_per_subject: true,
  });
  await jsm.consumers.add(workStream(prefix), {
    durable_name: CONSUMER,
    filter_subject: `${lanesOf(prefix)}>`,
    ack_policy: AckPolicy.Explicit,
    ack_wait: ACK_WAIT_NS,
    max_ack_pending: MAX_ACK_PENDING,
  });
}

export type Renew = (jsm: JetStreamManager, prefix: string) => Promise<boolean>; // whether the consumer was made away with, to be made anew

// A power cut may leave the consumer ahead of its stream, whose last changes were not on the disk. Then it passes over tickets for ever, and each of
// them refuses the next ones of its lane; what it had delivered of the lost changes counts as unacknowledged for ever. So its counts tell nothing: it is
// stuck when, look after look, somebody waits for tickets, there are some, and none was delivered. A new consumer begins with all that is there.
export function openRenew(): Renew {
  let looks = 0;
  let delivered = 0;
  return async (jsm, prefix) => {
    const name = workStream(prefix);
    const [{ state }, consumer] = await Promise.all([jsm.streams.info(name), jsm.consumers.info(name, CONSUMER)]);
    const count = consumer.delivered.consumer_seq; // deliveries, repeated ones too
    if (state.messages === 0 || count !== delivered) looks = 0;
    else if (consumer.num_waiting > 0) looks += 1;
    delivered = count;
    if (looks < LOOKS) return false;
    looks = 0;
    await jsm.consumers.delete(name, CONSUMER);
    return true;
  };
}
