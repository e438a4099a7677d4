// sender.ts: sends what is due to receivers: a few at once to each, so that one that is slow or away delays no other.
import { HookAuth_Algorithm as Algorithm, HookAuth_Layout as Layout } from '#gen/millrace/webhooks/v1/hook.ts';
import type { Db } from '#platform/db.ts';
import { type Egress, EgressFault } from '#platform/egress.ts';
import { toBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { counter } from '#platform/metrics.ts';
import { repeat } from '#platform/pause.ts';
import type { Vault } from './secrets.ts';
import { signatureOf, signedBytes } from './signature.ts';
import { backoffMs } from './subscription.ts';
import * as system from './subscription-system.ts';

interface Deps {
  db: Db;
  vault: Vault;
  egress: Egress;
  clock: () => Date;
  log: Logger;
}

const IDLE_MS = 1000;
const MAX_RECEIVERS = 64; // at the same time
const AT_ONCE = 4; // to one receiver
const GONE = 410;
const SHOWN = 200; // characters of an answer that says why
const sent = counter('millrace_webhooks_sends_total', 'Events sent to receivers', ['outcome']);

export function openSender(deps: Deps): { wake(): void; stop(): Promise<void> } {
  const { db, log } = deps;
  const busy = new Map<string, Promise<void>>();
  let isStopped = false;

  async function turn(): Promise<void> {
    if (isStopped || busy.size >= MAX_RECEIVERS) return;
    for (const receiver of await system.ready(db, MAX_RECEIVERS)) {
      if (isStopped || busy.size >= MAX_RECEIVERS) return;
      if (busy.has(receiver.id)) continue;
      const work = serve(receiver)
        .catch((error) => log.warn({ error, subscription: receiver.id }, 'events cannot be sent now'))
        .finally(() => busy.delete(receiver.id));
      busy.set(receiver.id, work);
    }
  }

  // Until nothing is due, or a send has failed: then the next turn looks whether to go on.
  async function serve(receiver: system.Ready): Promise<void> {
    if (receiver.isSuspect && !(await system.mayProbe(db, receiver))) return;
    const limit = receiver.isSuspect ? 1 : AT_ONCE;
    for (let goesOn = true; goesOn && !isStopped; ) {
      const dues = await system.claimDue(db, receiver, limit);
      const outcomes = await Promise.all(dues.map((due) => deliver(deps, receiver, due)));
      goesOn = dues.length === limit && outcomes.every(Boolean);
    }
    wake();
  }

  const { wake, stop } = repeat(IDLE_MS, turn, log);
  return {
    wake,
    async stop() {
      isStopped = true;
      await stop();
      await Promise.all(busy.values());
    },
  };
}

// One send; whether it was received.
async function deliver({ db, vault, egress, clock, log }: Deps, receiver: system.Ready, due: system.Due): Promise<boolean> {
  const outcome = await post(egress, receiver.url, headersOf(vault, receiver, due, clock()), due);
  await system.settle(db, due, outcome);
  if (!('error' in outcome)) {
    sent.inc({ outcome: 'received' });
    await system.receiverIsWell(db, due);
    return true;
  }
  sent.inc({ outcome: due.isLast ? 'dead' : 'failed' });
  log.info({ subscription: due.subscriptionId, delivery: due.id, status: outcome.status, why: outcome.error }, 'an event was not received');
  await system.receiverFailed(db, due, outcome.status === GONE);
  return false;
}

async function post(egress: Egress, url: string, headers: Record<string, string>, due: system.Due): Promise<system.Outcome> {
  const retryMs = backoffMs(due.attempts, Math.random());
  try {
    const { status, body } = await egress.post(url, headers, due.payload);
    if (status >= 200 && status < 300) return { status };
    return { status, error: `it answered ${status}${body === '' ? '' : `: ${body.slice(0, SHOWN)}`}`, retryMs };
  } catch (error) {
    return { status: 0, error: error instanceof EgressFault ? error.message : 'it could not be called', retryMs };
  }
}

// While one secret is being replaced by another, a signature of each.
function headersOf(vault: Vault, { id, sealed }: system.Ready, due: system.Due, now: Date): Record<string, string> {
  const timestamp = `${Math.floor(now.getTime() / 1000)}`;
  const signed = signedBytes('{id}.{timestamp}.{body}', Buffer.from(due.payload), timestamp, due.id);
  const owner = toBytes('subscription', id);
  const sign = (secret: string) => signatureOf({ algorithm: Algorithm.SHA256, layout: Layout.STANDARD }, secret, signed).toString('base64');
  return {
    'content-type': 'application/cloudevents+json',
    'user-agent': 'Millrace-Webhooks/1',
    'webhook-id': due.id,
    'webhook-timestamp': timestamp,
    'webhook-signature': sealed.map((one) => `v1,${sign(vault.open(owner, one))}`).join(' '),
  };
}
