// What a stream of a session still has to send. Things of a kind that wait together go out together.

import type { Job } from '#gen/millrace/runner/v1/job.ts';
import { type ConfirmOutput_Item, type SessionOpen, SessionRequest } from '#gen/millrace/runner/v1/session.ts';

export interface Outgoing extends AsyncIterable<SessionRequest> {
  start(jobs: readonly Job[]): void;
  cancel(claims: readonly Buffer[]): void;
  drop(claims: readonly Buffer[]): void;
  ping(nonce: number): void;
  confirm(items: readonly ConfirmOutput_Item[]): void;
  close(): void;
}

const FRAME_BYTES = 1024 * 1024; // a larger job travels alone; a message must stay below 4 MiB
const MAX_ITEMS = 1000;
const RULE_BYTES = 320; // at most, with its ports

export function openOutgoing(open: SessionOpen): Outgoing {
  const jobs: Job[] = [];
  const cancels: Buffer[] = [];
  const drops: Buffer[] = [];
  const pings: number[] = [];
  const confirms: ConfirmOutput_Item[] = [];
  let wake: (() => void) | undefined;
  let isClosed = false;
  const queue = <T>(waiting: T[], items: readonly T[]): void => {
    if (isClosed || items.length === 0) return;
    waiting.push(...items);
    wake?.();
  };

  function* pending(): Generator<Partial<SessionRequest>> {
    while (!isClosed) {
      if (pings.length > 0) yield { ping: { nonce: pings.shift() ?? 0 } };
      else if (jobs.length > 0)
        yield { start: { jobs: jobs.splice(0, fitting(jobs)) } }; // first: a server knows nothing of a claim that it has not got
      else if (cancels.length > 0) yield { cancel: { claimIds: cancels.splice(0, MAX_ITEMS) } };
      else if (drops.length > 0) yield { drop: { claimIds: drops.splice(0, MAX_ITEMS) } };
      else if (confirms.length > 0) yield { confirm: { items: confirms.splice(0, MAX_ITEMS) } };
      else return;
    }
  }

  return {
    start: (some) => queue(jobs, some),
    cancel: (claims) => queue(cancels, claims),
    drop: (claims) => queue(drops, claims),
    ping: (nonce) => queue(pings, [nonce]),
    confirm: (items) => queue(confirms, items),
    close() {
      isClosed = true;
      wake?.();
    },
    async *[Symbol.asyncIterator]() {
      yield SessionRequest.fromPartial({ open });
      while (!isClosed) {
        for (const message of pending()) yield SessionRequest.fromPartial(message);
        if (isClosed) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      }
    },
  };
}

// How many of the first jobs fit into a message.
function fitting(jobs: readonly Job[]): number {
  let bytes = 0;
  let count = 0;
  for (const { source, inputJson, secrets, variables, egress } of jobs) {
    bytes += source.length + inputJson.length + (egress?.rules.length ?? 0) * RULE_BYTES;
    for (const { value } of secrets) bytes += value.length;
    for (const { valueJson } of variables) bytes += valueJson.length;
    if (count > 0 && bytes > FRAME_BYTES) break;
    count += 1;
  }
  return count;
}
