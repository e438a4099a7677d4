// Turns: pulls tickets while there are credits, acks them, and only when that is confirmed claims for their lanes. A ticket in flight would refuse
// its successor: what is accepted after the claim's read would wait for the sweep.
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import { createInbox } from '@nats-io/transport-node';
import type { Bus } from '#platform/bus.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { CONSUMER, laneOfTicket, workStream } from '../engine/tickets.ts';
import * as metrics from './metrics.ts';

interface Deps {
  bus: Bus;
  log: Logger;
  credits(): number;
  claim(lanes: readonly number[]): Promise<void>;
}
export interface Turns {
  capacity(): void; // credits may have come
  stop(): Promise<void>;
}

const MOST = 32; // tickets in one claim
const EXPIRES_MS = 5000;
const HELD_MS = 100; // how long a ticket waits here for a credit before others may have it
const ACK_MS = 1000;
const GATHER_MS = 6; // a claim costs less when it starts a few
const AGAIN_MS = 200;
const ACK = '+ACK';
const NAK = '-NAK';

export function openTurns({ bus, log, credits, claim }: Deps): Turns {
  const stopped = new AbortController();
  const tickets: { message: Msg; since: number }[] = [];
  let asked = 0; // tickets that the broker may still send
  let askedUntil = 0;
  let wake: () => void = () => undefined;

  function receive(message: Msg): void {
    const status = message.headers?.code ?? 0;
    if (status === 100) return; // heartbeat
    if (status > 0) {
      asked = 0; // the pull is over: expired, or the consumer is gone
      if (status !== 408) metrics.tickets.inc({ outcome: `status ${status}` });
      setTimeout(() => wake(), status === 408 ? 0 : AGAIN_MS);
      return;
    }
    asked = Math.max(0, asked - 1);
    tickets.push({ message, since: performance.now() });
    wake();
  }

  // Asks for more while there are credits and nothing waits here.
  function pull(connection: NatsConnection, inbox: string): void {
    const want = Math.min(MOST, credits());
    if (want <= 0 || tickets.length > 0 || (asked > 0 && performance.now() < askedUntil)) return;
    asked = want;
    askedUntil = performance.now() + EXPIRES_MS + AGAIN_MS;
    const body = JSON.stringify({ batch: want, expires: EXPIRES_MS * 1e6 });
    connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${workStream(bus.prefix)}.${CONSUMER}`, body, { reply: inbox });
  }

  // Others may have what waited too long for a credit of ours.
  function giveBack(all: boolean): void {
    const limit = performance.now() - HELD_MS;
    while (tickets[0] && (all || tickets[0].since <= limit)) {
      tickets.shift()?.message.respond(NAK);
      metrics.tickets.inc({ outcome: 'given back' });
    }
  }

  async function turn(connection: NatsConnection): Promise<void> {
    const taken = tickets.splice(0, Math.min(MOST, credits())); // the others keep their place
    const confirmed = await Promise.all(taken.map(({ message }) => ack(connection, message)));
    failpoint('claim.after_ack');
    const lanes = confirmed.filter((lane) => lane !== undefined);
    metrics.tickets.inc({ outcome: 'taken' }, lanes.length);
    if (lanes.length > 0) await claim([...new Set(lanes)]);
  }

  // The lane, once the broker has confirmed that the ticket is gone. A ticket whose ack is not confirmed comes again by itself.
  async function ack(connection: NatsConnection, { reply, subject }: Msg): Promise<number | undefined> {
    if (!reply) return undefined;
    return connection.request(reply, ACK, { timeout: ACK_MS }).then(
      () => laneOfTicket(bus.prefix, subject),
      () => undefined,
    );
  }

  async function run(): Promise<void> {
    const connection = await bus.connection();
    const inbox = createInbox();
    const subscription: Subscription = connection.subscribe(inbox, {
      callback: (error, message) => (error ? undefined : receive(message)),
    });
    let isFull = false; // the last claim took every credit: those that come now come one by one
    while (!stopped.signal.aborted) {
      const woken = sleeper();
      wake = woken.wake;
      try {
        if (tickets.length > 0 && credits() > 0) {
          if (isFull) await pause(GATHER_MS);
          await turn(connection);
          isFull = credits() <= 0;
          continue;
        }
        giveBack(false);
        pull(connection, inbox);
      } catch (error) {
        log.warn({ error }, 'a claim failed');
        await pause(AGAIN_MS, stopped.signal);
      }
      await woken.sleep(tickets.length > 0 ? HELD_MS : EXPIRES_MS);
    }
    giveBack(true);
    subscription.unsubscribe();
  }

  const running = run().catch((error) => {
    if (!stopped.signal.aborted) log.error({ error }, 'tickets cannot be taken');
  });
  const unfollow = bus.onReconnect(() => {
    asked = 0; // what was asked of the broker that went away
    wake();
  });
  return {
    capacity: () => wake(),
    async stop() {
      unfollow();
      stopped.abort();
      wake();
      await Promise.race([running, pause(ACK_MS)]);
    },
  };
}

// A sleep that can be ended early, even before it began.
function sleeper(): { wake(): void; sleep(ms: number): Promise<void> } {
  let isAwake = false;
  let end: (() => void) | undefined;
  return {
    wake() {
      isAwake = true;
      end?.();
    },
    sleep: (ms) =>
      new Promise((resolve) => {
        if (isAwake) return resolve();
        const timer = setTimeout(resolve, ms);
        end = () => {
          clearTimeout(timer);
          resolve();
        };
      }),
  };
}
