// Which tokens count no longer although they have not expired: ended sessions and disabled users.
// The truth is identity's table. Its feed is a NATS KV bucket; identity's admin port is asked every 5 seconds besides.
// Without either for 10 seconds writes are refused, and a minute later reads too.
import { Kvm } from '@nats-io/kv';
import type { Bus } from './bus.ts';
import type { Method } from './contract.ts';
import { unauthenticated } from './errors.ts';
import type { Caller } from './handlers.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';

export interface Revocation {
  issuedBefore: number; // seconds; tokens issued at that second or earlier are refused
  expire: number; // seconds; no such token can be valid any longer
}
export interface Revocations {
  check(caller: Caller, issued: number, method: Method): void; // throws UNAUTHENTICATED
  state(): Promise<void>; // rejects while the feed is stale
  stop(): Promise<void>;
}

const POLL_MS = 5000;
const WRITES_STALE_MS = 10_000;
const READS_STALE_MS = 70_000;

interface Options {
  bus: Bus;
  url: string; // identity's /revocations
  log: Logger;
}

export function openRevocations({ bus, url, log }: Options): Revocations {
  const revoked = new Map<string, Revocation>();
  const stopped = new AbortController();
  let fresh = performance.now();
  let since = 0;

  const learn = (subject: string, entry: Revocation) => {
    const known = revoked.get(subject);
    if (!known || known.issuedBefore < entry.issuedBefore) revoked.set(subject, entry);
  };

  async function poll(): Promise<void> {
    const answer = await fetch(`${url}?since=${since}`, { signal: AbortSignal.timeout(2000) });
    if (!answer.ok) throw new Error(`identity answered ${answer.status}`);
    const body = (await answer.json()) as { revocations: (Revocation & { subject: string })[]; now: number };
    for (const { subject, ...entry } of body.revocations) learn(subject, entry);
    since = body.now - 60;
    fresh = performance.now();
    for (const [subject, { expire }] of revoked) if (expire < body.now) revoked.delete(subject);
  }

  async function watch(): Promise<void> {
    while (!stopped.signal.aborted) {
      try {
        const kv = await new Kvm(await bus.connection()).open(`${bus.prefix}_revocations`);
        const entries = await kv.watch();
        const end = () => entries.stop();
        stopped.signal.addEventListener('abort', end, { once: true });
        for await (const entry of entries) if (entry.operation === 'PUT') learn(entry.key, entry.json<Revocation>());
        stopped.signal.removeEventListener('abort', end);
      } catch (error) {
        log.debug({ error }, 'the feed of revocations is not there; asking identity instead');
      }
      await pause(1000, stopped.signal);
    }
  }

  async function pollForEver(): Promise<void> {
    while (!stopped.signal.aborted) {
      await poll().catch((error) => log.debug({ error }, 'identity cannot be asked for revocations'));
      await pause(performance.now() - fresh > POLL_MS ? 500 : POLL_MS, stopped.signal);
    }
  }

  const loops = [watch(), pollForEver()];
  const age = () => performance.now() - fresh;
  return {
    check(caller, issued, method) {
      for (const subject of [caller.session, caller.user]) {
        const entry = revoked.get(subject);
        if (entry && issued <= entry.issuedBefore) throw unauthenticated('TOKEN_REVOKED', 'the session has ended: sign in again');
      }
      if (age() > (method.isRead ? READS_STALE_MS : WRITES_STALE_MS)) {
        throw unauthenticated('REVOCATION_UNKNOWN', 'whether the session has ended cannot be checked just now: try again in a few seconds');
      }
    },
    async state() {
      if (age() > WRITES_STALE_MS) throw new Error(`no word from identity for ${Math.round(age() / 1000)} s`);
    },
    async stop() {
      stopped.abort();
      await Promise.all(loops);
    },
  };
}
