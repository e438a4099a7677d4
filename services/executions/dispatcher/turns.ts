// Turns: pulls tickets while there are credits, acks them, and only when that is confirmed claims for their lanes. A ticket in flight would refuse
// its successor: what is accepted after the claim's read would wait for the sweep.
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import { createInbox } from '@nats-io/transport-node';
import type { Bus } from '#platform/bus.ts';
import { failpoint } from '#platform/failpoint.ts';
import type { Logger } from '#platform/log.ts';
import { openPace } from '#platform/pace.ts';
import { pause, sleeper } from '#platform/pause.ts';
import type { Fresh } from '../engine/fresh.ts';
import * as notices from '../engine/notices.ts';
import { CONSUMER, laneOfTicket, workOf, workStream } from '../engine/tickets.ts';
import * as metrics from './metrics.ts';

interface Deps {
  bus: Bus;
  log: Logger;
  credits(): number;
  held(): number; // claims that servers have
  hasDue(): boolean; // there is something to claim beside the tickets
  claim(lanes: readonly number[], fresh?: readonly Fresh[]): Promise<void>; // `fresh`: all that is known to be there
}
export interface Turns {
  capacity(): void; // credits may have come
  isIdle(): boolean; // nothing waits but tickets behind a notice, and the last claim left places free
  stop(): Promise<void>;
}

const MOST = 32; // tickets in one claim
const EXPIRES_MS = 5000;
const HELD_MS = 100; // how long a ticket waits here for a credit before others may have it
const ACK_MS = 1000;
const AFTER_MS = 50; // a ticket mostly finds nothing after its notice: what was started goes first, and those that follow share a look
const PATIENCE_MS = 100; // but a notice that was lost costs no more
const GATHER_MS = 25;
const PACE_MS = 50;
const BUSY = 2; // credits that came in that time
const AGAIN_MS = 200;
const ACK = '+ACK';
const NAK = '-NAK';

export function openTurns({ bus, log, credits, held, hasDue, claim }: Deps): Turns {
  const stopped = new AbortController();
  const tickets: { message: Msg; since: number }[] = [];
  let asked = 0; // tickets that the broker may still send
  let askedUntil = 0;
  let wake: () => void = () => undefined;
  const noticed = new Set<number>(); // lanes with work that came just now
  let fresh: Fresh[] | undefined = []; // all of it; undefined when that is not known
  const pace = openPace(PACE_MS); // of credits
  let noticeTime = Number.NEGATIVE_INFINITY; // of the last claim without a ticket
  let last = 0; // credits when last counted
  let slots = 0; // when the last claim took every credit: those that come now come one by one

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

  function count(): void {
    const now = credits();
    if (now > last) pace.add(now - last);
    last = now;
  }

  // A claim costs less when it starts a few: while every slot was taken and they come free fast, it waits until half of them are.
  async function gather(): Promise<void> {
    const until = performance.now() + GATHER_MS;
    for (let left = GATHER_MS; left > 0 && pace.recent() >= BUSY && credits() * 2 < slots; left = until - performance.now()) {
      const woken = sleeper();
      wake = woken.wake;
      await woken.sleep(left);
    }
  }

  async function take(lanes: readonly number[], known?: readonly Fresh[]): Promise<void> {
    await claim(lanes, known);
    last = credits();
    slots = last <= 0 ? held() : 0;
  }

  async function turn(connection: NatsConnection): Promise<void> {
    const taken = tickets.splice(0, Math.min(MOST, credits())); // the others keep their place
    failpoint('claim.before_ack');
    const confirmed = await Promise.all(taken.map(({ message }) => ack(connection, message)));
    failpoint('claim.after_ack');
    const lanes = confirmed.filter((lane) => lane !== undefined);
    metrics.tickets.inc({ outcome: 'taken' }, lanes.length);
    if (lanes.length > 0) await take([...new Set(lanes)]);
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
    while (!stopped.signal.aborted) {
      const woken = sleeper();
      wake = woken.wake;
      try {
        const lanes = [...noticed];
        const known = fresh;
        noticed.clear();
        fresh = [];
        if (lanes.length > 0 && slots === 0 && credits() > 0) {
          await take(lanes, known);
          noticeTime = performance.now();
          continue;
        }
        if (tickets.length > 0 && credits() > 0) {
          const early = slots === 0 ? noticeTime + AFTER_MS - performance.now() : 0;
          if (early > 0 && performance.now() - (tickets[0]?.since ?? 0) < PATIENCE_MS) {
            await woken.sleep(early);
            continue;
          }
          await gather();
          await turn(connection);
          continue;
        }
        if (hasDue()) {
          await take([]);
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
  const unfollow = [
    bus.onReconnect(() => {
      asked = 0; // what was asked of the broker that went away
      wake();
    }),
    bus.onNotice(
      notices.work,
      (data) => {
        const work = workOf(data);
        for (const lane of work.lanes) noticed.add(lane);
        fresh = work.fresh.length > 0 ? fresh?.concat(work.fresh) : undefined;
        wake();
      },
      CONSUMER,
    ),
  ];
  return {
    capacity() {
      count();
      wake();
    },
    isIdle: () => slots === 0 && noticed.size === 0 && (tickets.length === 0 || performance.now() < noticeTime + AFTER_MS),
    async stop() {
      for (const stop of unfollow) stop();
      stopped.abort();
      wake();
      await Promise.race([running, pause(ACK_MS)]);
    },
  };
}
