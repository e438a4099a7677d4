// revocation-feed.ts: tells every process what was revoked, by a NATS key-value bucket that is only a copy of the table: whatever the
// broker loses is told again.
import { type KV, Kvm } from '@nats-io/kv';
import type { Bus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import type { Logger } from '#platform/log.ts';
import { gauge } from '#platform/metrics.ts';
import { pause } from '#platform/pause.ts';
import { RETAIN_SECONDS, type Revocation, since } from './revocation-system.ts';

export interface Feed {
  poke(): void; // something was revoked and committed
  stop(): Promise<void>;
}

const EVERY_MS = 1000;
const OVERLAP_SECONDS = 60; // a writer may commit this long after the time that it wrote
const AT_ONCE = 50;

const live = gauge('millrace_identity_revocations_count', 'Sessions and users whose tokens are refused although they have not expired');

export function openFeed({ db, bus, log }: { db: Db; bus: Bus; log: Logger }): Feed {
  const stopped = new AbortController();
  const told = new Map<string, Revocation>();
  let wake = new AbortController();
  let made = ''; // when the bucket was
  let last = 0; // its newest entry that is known
  let from = 0; // seconds
  let isLost = true; // whatever the bucket holds is not known
  const lose = () => {
    isLost = true;
  };

  async function tell(): Promise<void> {
    const kv = await new Kvm(await bus.connection()).create(`${bus.prefix}_revocations`, {
      history: 1,
      ttl: RETAIN_SECONDS * 1000,
      replicas: bus.replicas,
    });
    const { streamInfo } = await kv.status();
    const { name, num_replicas: copies } = streamInfo.config;
    if (copies !== bus.replicas) await (await bus.jetstream()).jsm.streams.update(name, { num_replicas: bus.replicas });
    if (isLost || String(streamInfo.created) !== made || streamInfo.state.last_seq < last) {
      told.clear();
      from = 0;
      isLost = false;
    }
    made = String(streamInfo.created);
    last = streamInfo.state.last_seq;
    const { revocations, now } = await since(db, from);
    const fresh = revocations.filter(({ subject, issuedBefore }) => told.get(subject)?.issuedBefore !== issuedBefore);
    for (let at = 0; at < fresh.length; at += AT_ONCE) await Promise.all(fresh.slice(at, at + AT_ONCE).map((one) => put(kv, one)));
    for (const [subject, { expire }] of told) if (expire < now) told.delete(subject);
    from = now - OVERLAP_SECONDS;
    live.set(told.size);
  }

  async function put(kv: KV, revocation: Revocation): Promise<void> {
    const { subject, issuedBefore, expire } = revocation;
    last = Math.max(last, await kv.put(subject, JSON.stringify({ issuedBefore, expire })));
    told.set(subject, revocation);
  }

  async function run(): Promise<void> {
    for (let said = false; !stopped.signal.aborted; ) {
      wake = new AbortController();
      try {
        await tell();
        said = false;
      } catch (error) {
        if (!said && !stopped.signal.aborted)
          log.warn({ error }, 'revocations cannot be fed to the broker now; services ask identity instead');
        said = true;
      }
      await pause(EVERY_MS, wake.signal);
    }
  }

  const forget = bus.onReconnect(lose);
  const running = run();
  return {
    poke: () => wake.abort(),
    async stop() {
      forget();
      stopped.abort();
      wake.abort();
      await Promise.race([running, pause(3000)]);
    },
  };
}
