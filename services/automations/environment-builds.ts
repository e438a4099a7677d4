// environment-builds.ts: builds as builders and watchers see them. Changes are told by notices, which may be lost: who waits looks again.
import type { Bus } from '#platform/bus.ts';
import type { Db } from '#platform/db.ts';
import { sleeper } from '#platform/pause.ts';
import * as system from './environment-system.ts';

export type { Claimed, End, Line } from './environment-system.ts';

export interface Builds {
  queued(): void; // there may be one to claim
  claim(builder: string, platform: string, signal: AbortSignal): Promise<system.Claimed | undefined>;
  tell(digest: string, epoch: number, firstLine: number, lines: readonly string[]): Promise<void>;
  end(digest: string, epoch: number, end: system.End): Promise<void>;
  state(digest: string): Promise<{ state: string; error: string }>;
  has(digest: string, line: number): Promise<boolean>;
  follow(digest: string, from: number, signal: AbortSignal): AsyncGenerator<system.Line>; // to the end of the build
}

const QUEUE = 'environments.queue';
const subjectOf = (digest: string): string => `environments.builds.${digest}`;
const CLAIM_MS = 10_000;
const LOOK_MS = 1000;
const PAGE = 500;
export const { LEASE_MS } = system;

export function openBuilds({ db, bus }: { db: Db; bus: Pick<Bus, 'notify' | 'onNotice'> }): Builds {
  const changed = (digest: string) => bus.notify(subjectOf(digest));
  const bytes = (digest: string) => Buffer.from(digest, 'hex');

  // Until a notice, or the time is up.
  async function heard(woken: ReturnType<typeof sleeper>, signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', woken.wake, { once: true });
    await woken.sleep(LOOK_MS);
    signal.removeEventListener('abort', woken.wake);
  }

  return {
    queued: () => bus.notify(QUEUE),
    async claim(builder, platform, signal) {
      const until = performance.now() + CLAIM_MS;
      for (;;) {
        const woken = sleeper();
        const stop = bus.onNotice(QUEUE, woken.wake);
        try {
          const { claimed, failed } = await system.claim(db, builder, platform);
          if (claimed) changed(claimed.digest.toString('hex'));
          if (claimed) return claimed;
          if (failed) changed(failed.toString('hex'));
          if (performance.now() > until || signal.aborted) return undefined;
          if (!failed) await heard(woken, signal);
        } finally {
          stop();
        }
      }
    },
    async tell(digest, epoch, firstLine, lines) {
      await system.tell(db, bytes(digest), epoch, firstLine, lines);
      if (lines.length > 0) changed(digest);
    },
    async end(digest, epoch, end) {
      await system.end(db, bytes(digest), epoch, end);
      changed(digest);
    },
    state: (digest) => system.state(db, bytes(digest)),
    async has(digest, line) {
      return line < (await system.read(db, bytes(digest), 0, 0)).count;
    },
    async *follow(digest, from, signal) {
      for (let next = from; !signal.aborted; ) {
        const woken = sleeper();
        const stop = bus.onNotice(subjectOf(digest), woken.wake);
        try {
          const { lines, isEnded } = await system.read(db, bytes(digest), next, PAGE);
          yield* lines;
          next = lines.at(-1) ? (lines.at(-1) as system.Line).seq + 1 : next;
          if (lines.length === PAGE) continue;
          if (isEnded) return;
          await heard(woken, signal);
        } finally {
          stop();
        }
      }
    },
  };
}
