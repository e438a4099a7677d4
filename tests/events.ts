// Listens to what an area publishes on NATS, as any consumer may.
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { brokerAddress } from '#platform/broker-address.ts';
import type { World } from './world.ts';

export interface Heard<T> {
  type: string;
  version: number;
  subject: string; // of NATS
  event: T;
}
export interface Listener<T> {
  broker: NatsConnection; // as the test's own
  heard: readonly Heard<T>[];
  stop(): Promise<void>;
}

export async function listen<T>(world: World, area: string, decode: (data: Uint8Array) => T): Promise<Listener<T>> {
  const broker = await connect(brokerAddress(world.config.natsUrl));
  const heard: Heard<T>[] = [];
  broker.subscribe(`${world.config.natsPrefix}.events.${area}.>`, {
    callback: (_error, { headers, data, subject }) => {
      heard.push({ type: headers?.get('ce-type') ?? '', version: Number(headers?.get('ce-version')), subject, event: decode(data) });
    },
  });
  await broker.flush(); // from here on nothing is missed
  return { broker, heard, stop: () => broker.close() };
}
