// NATS: notices over core NATS ("look", never the truth), events over JetStream, at least once. A broker that is away is waited for.
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager, RetentionPolicy, StorageType } from '@nats-io/jetstream';
import { connect, type NatsConnection, type Subscription } from '@nats-io/transport-node';
import { brokerAddress } from './broker-address.ts';
import type { Config } from './config.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';

export interface Bus {
  prefix: string;
  replicas: number; // of each stream
  connection(): Promise<NatsConnection>; // resolves once connected for the first time
  jetstream(): Promise<{ js: JetStreamClient; jsm: JetStreamManager }>;
  notify(subject: string, data?: string | Uint8Array): void; // best effort, lost while the broker is away
  // With a group, one of those that listen in it hears each notice.
  onNotice(subject: string, listen: (data: Uint8Array, subject: string) => void, group?: string): () => void;
  onReconnect(listen: () => void): () => void; // notices may have been lost: look yourself
  ensureEvents(): Promise<void>; // makes the stream of events when it is missing
  state(): Promise<void>; // rejects while the broker is away
  stop(): Promise<void>;
}

interface Want {
  subject: string;
  listen(data: Uint8Array, subject: string): void;
  group: string | undefined;
}

const EVENTS_MAX_AGE_NS = 7 * 24 * 3600 * 1e9;
const OTHERWISE_CONFIGURED = 10_058; // JSStreamNameExistErr

export const eventsStream = (prefix: string): string => `${prefix}_EVENTS`;

type Stream = Parameters<JetStreamManager['streams']['add']>[0] & { num_replicas: number };

// Makes a stream, and has an earlier one kept on as many servers as is wanted now.
export async function ensureStream(jsm: JetStreamManager, config: Stream): Promise<void> {
  try {
    await jsm.streams.add(config);
  } catch (error) {
    if ((error as { code?: unknown }).code !== OTHERWISE_CONFIGURED) throw error;
    const { config: known } = await jsm.streams.info(config.name);
    if (known.num_replicas === config.num_replicas) throw error;
    await jsm.streams.update(config.name, { num_replicas: config.num_replicas });
  }
}

export function openBus(config: Pick<Config, 'natsUrl' | 'natsPrefix'> & Partial<Pick<Config, 'natsReplicas'>>, log: Logger): Bus {
  const prefix = config.natsPrefix;
  const replicas = config.natsReplicas ?? 1;
  const address = brokerAddress(config.natsUrl);
  const stopped = new AbortController();
  const reconnected = new Set<() => void>();
  const wanted = new Map<Want, Subscription | undefined>();
  let nc: NatsConnection | undefined;
  let isUp = false;

  async function open(): Promise<NatsConnection> {
    for (let said = ''; ; ) {
      try {
        return await connect({
          ...address,
          maxReconnectAttempts: -1,
          ignoreAuthErrorAbort: true, // a password that is being changed is waited for like a broker that is away
          reconnectTimeWait: 200,
          reconnectJitter: 100,
          pingInterval: 5000,
          maxPingOut: 2,
          timeout: 3000,
          noAsyncTraces: true,
        });
      } catch (error) {
        if (stopped.signal.aborted) throw error;
        const { message } = error as Error;
        if (message !== said) log.warn({ error }, 'waiting for the broker');
        said = message;
        await pause(250, stopped.signal);
      }
    }
  }

  const subscribe = (want: Want) => {
    const cut = `${prefix}.notices.`.length;
    const callback = (error: Error | null, message: { data: Uint8Array; subject: string }) => {
      if (!error) want.listen(message.data, message.subject.slice(cut));
    };
    wanted.set(want, nc?.subscribe(`${prefix}.notices.${want.subject}`, { callback, ...(want.group ? { queue: want.group } : {}) }));
  };

  async function follow(connection: NatsConnection): Promise<void> {
    for await (const { type } of connection.status()) {
      if (type === 'disconnect') isUp = false;
      if (type === 'reconnect') {
        isUp = true;
        for (const listen of reconnected) listen();
      }
    }
  }

  const opened = open().then((connection) => {
    nc = connection;
    isUp = true;
    for (const want of wanted.keys()) subscribe(want);
    void follow(connection);
    for (const listen of reconnected) listen();
    return connection;
  });
  opened.catch(() => undefined); // only a stop ends the waiting; whoever awaits it hears so

  const bus: Bus = {
    prefix,
    replicas,
    connection: () => opened,
    async jetstream() {
      const connection = await opened;
      return { js: jetstream(connection, { timeout: 5000 }), jsm: await jetstreamManager(connection, { checkAPI: false, timeout: 5000 }) };
    },
    notify(subject, data) {
      if (isUp && nc && !nc.isClosed()) nc.publish(`${prefix}.notices.${subject}`, data);
    },
    onNotice(subject, listen, group) {
      const want = { subject, listen, group };
      wanted.set(want, undefined);
      if (nc) subscribe(want);
      return () => {
        wanted.get(want)?.unsubscribe();
        wanted.delete(want);
      };
    },
    onReconnect(listen) {
      reconnected.add(listen);
      return () => void reconnected.delete(listen);
    },
    async ensureEvents() {
      const { jsm } = await bus.jetstream();
      await ensureStream(jsm, {
        name: eventsStream(prefix),
        subjects: [`${prefix}.events.>`],
        retention: RetentionPolicy.Limits,
        storage: StorageType.File,
        num_replicas: replicas,
        max_age: EVENTS_MAX_AGE_NS,
        duplicate_window: 120 * 1e9,
      });
    },
    async state() {
      if (!isUp) throw new Error('the broker does not answer');
    },
    async stop() {
      stopped.abort();
      await nc?.close();
    },
  };
  return bus;
}
