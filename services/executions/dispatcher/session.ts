// The session with one automation server that this dispatcher owns: two streams, control and output, opened again until it is closed.
//
//   opening -> open (what the server holds is compared with running: adopted, dropped, given back) -> broken -> opening -> ...
// Claims are registered before they are committed, so that whoever compares never takes a fresh one for a lost one.

import type { Job } from '#gen/millrace/runner/v1/job.ts';
import type { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import { SessionOpen_Channel, type SessionOpened, type SessionResponse } from '#gen/millrace/runner/v1/session.ts';
import type { ClientOf } from '#platform/client.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { pause } from '#platform/pause.ts';
import { hex } from '../engine/sql.ts';
import * as metrics from './metrics.ts';
import { type Outgoing, openOutgoing } from './outgoing.ts';
import { receiveOutput } from './output.ts';
import type { Reply, Report } from './report.ts';

export interface Owned {
  id: Buffer;
  endpoint: string;
  epoch: number;
}
// A claim of the server as running tells it.
export interface Claim {
  execution: Buffer;
  claim_id: Buffer;
  attempt: number;
  state: 'RUNNING' | 'CANCELLING';
  started: number;
  line_count: number;
}
export interface Session {
  server: Owned;
  isOpen(): boolean; // the server has given a sign of life just now
  credits(): number;
  expect(claimId: Buffer): void; // a claim is about to be committed; takes a credit
  forget(claimId: Buffer): void; // it was not
  start(jobs: readonly Job[]): void; // those that were expected
  look(): Promise<void>; // compares with running
  close(): Promise<void>;
}
interface Deps {
  client: ClientOf<typeof RunnerServiceService>;
  dispatcherId: string;
  log: Logger;
  claims(server: Buffer, signal: AbortSignal): Promise<Claim[]>; // waits for a database that is away, until the signal
  report(report: Report): Promise<Reply>;
  adopted(claims: readonly Claim[]): void; // that this dispatcher did not have before
  changed(): void; // credits came, or it opened or broke
  disowned(): void; // somebody else owns the server
}

const OPEN_MS = 5000;
const PING_MS = 2000;
const SILENCE_MS = 8000;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2000;

export function openSession(deps: Deps, server: Owned): Session {
  const { log, dispatcherId } = deps;
  const closed = new AbortController();
  const mine = new Map<string, 'EXPECTED' | 'SENT'>(); // claims by their id in hexadecimal
  let control: Outgoing | undefined; // while it is open
  let credit = 0;
  let heard = 0;
  let looking: Promise<unknown> | undefined;
  let nextLook: Promise<void> | undefined; // for those that ask during a look: it may have read before what they want seen

  const serverId = fromBytes('server', server.id);
  const openingOf = (channel: SessionOpen_Channel) => openOutgoing({ dispatcherId, epoch: server.epoch, channel, serverId });
  const tell = (told: Omit<Report, 'server' | 'epoch'>) => deps.report({ ...told, server: server.id, epoch: server.epoch });

  // Drops what does not count any longer, and closes the session when nothing does.
  function heed(claimId: Buffer, reply: Reply): void {
    if (reply.kind === 'NOT_OWNER') deps.disowned();
    if (reply.kind === 'STALE') control?.drop([claimId]);
    if (reply.kind === 'STALE' || (reply.kind === 'KEPT' && reply.isOver)) mine.delete(hex(claimId));
  }

  // The server does not take them, or does not have them.
  async function giveBack(claims: readonly { execution: Buffer; claim_id: Buffer }[], given: 'REFUSED' | 'LOST'): Promise<void> {
    await Promise.all(
      claims.map(async ({ execution, claim_id: claimId }) => {
        const reply = await tell({ execution, claimId, given });
        mine.delete(hex(claimId));
        if (reply.kind === 'NOT_OWNER') deps.disowned();
      }),
    );
  }

  async function compare(held: ReadonlyMap<string, Buffer> | undefined): Promise<Claim[]> {
    const sent = new Set(held?.keys() ?? [...mine].flatMap(([claim, stage]) => (stage === 'SENT' ? [claim] : [])));
    const claims = await deps.claims(server.id, closed.signal);
    const present = new Map(claims.map((claim) => [hex(claim.claim_id), claim]));
    const stale = [...sent].filter((claim) => !present.has(claim));
    for (const claim of stale) mine.delete(claim);
    control?.drop(stale.map((claim) => Buffer.from(claim, 'hex')));
    const known = [...present].filter(([claim]) => sent.has(claim)).map(([, claim]) => claim);
    control?.cancel(known.filter(({ state }) => state === 'CANCELLING').map(({ claim_id }) => claim_id));
    const lost = [...present].filter(([claim]) => !sent.has(claim) && (held ? mine.get(claim) !== 'EXPECTED' : !mine.has(claim)));
    if (lost.length > 0) giveBack(lost.map(([, claim]) => claim), 'LOST').catch((error) => log.warn({ error }, 'lost claims could not be given back')); // biome-ignore format: a line
    return known;
  }

  async function adopt(opened: SessionOpened): Promise<Claim[]> {
    const held = new Map(opened.held.map(({ claimId }) => [hex(claimId), claimId]));
    const before = new Set(mine.keys());
    for (const claim of held.keys()) mine.set(claim, 'SENT');
    const known = await compare(held);
    const taken = known.filter(({ claim_id }) => !before.has(hex(claim_id)));
    if (taken.length > 0) metrics.adopted.inc(taken.length);
    deps.adopted(taken);
    if (held.size > 0)
      log.info({ server: fromBytes('server', server.id), held: held.size, adopted: known.length }, 'a session was taken up');
    return known;
  }

  async function refused(claimIds: readonly Buffer[]): Promise<void> {
    const claims = await deps.claims(server.id, closed.signal);
    await giveBack(claims.filter(({ claim_id }) => claimIds.some((one) => one.equals(claim_id))), 'REFUSED'); // biome-ignore format: a line
  }

  // Never waits for the database: a session outlives it.
  function obey(message: SessionResponse): void {
    heard = performance.now();
    if (message.credit) credit += message.credit.add;
    if (message.draining) credit = 0;
    if (message.credit || message.draining) deps.changed();
    const items = message.refused?.items ?? [];
    if (items.length === 0) return;
    log.debug({ server: fromBytes('server', server.id), reasons: items.map(({ reason }) => reason) }, 'jobs were refused');
    refused(items.map(({ claimId }) => claimId)).catch((error) => log.warn({ error }, 'refused jobs could not be given back'));
  }

  // One pair of streams, from their opening to their end.
  async function run(broken: AbortController): Promise<void> {
    const outgoing = openingOf(SessionOpen_Channel.CONTROL);
    const output = openingOf(SessionOpen_Channel.OUTPUT);
    const fail = (error: unknown) => {
      if (!broken.signal.aborted) log.warn({ error, endpoint: server.endpoint }, 'output could not be kept now');
      broken.abort();
    };
    const end = () => {
      outgoing.close();
      output.close();
    };
    broken.signal.addEventListener('abort', end, { once: true });
    const watch = setTimeout(() => broken.abort(), OPEN_MS);
    let beat: NodeJS.Timeout | undefined;
    let reading: Promise<void> | undefined;
    try {
      for await (const message of deps.client.session(outgoing, { signal: broken.signal })) {
        const { opened } = message;
        if (!opened) {
          obey(message);
          continue;
        }
        clearTimeout(watch);
        if (opened.serverId !== serverId) throw new Error(`${server.endpoint} is another server now`);
        heard = performance.now();
        control = outgoing;
        const known = await adopt(opened);
        output.confirm(known.map(({ claim_id, line_count, started }) => ({ claimId: claim_id, lines: line_count, started: started === 1, result: false }))); // biome-ignore format: a line
        reading = receiveOutput({ stream: deps.client.session(output, { signal: broken.signal }), outgoing: output, tell, heed, fail });
        reading.catch((error) => log.debug({ error }, 'an output stream ended')).finally(() => broken.abort());
        credit = opened.draining ? 0 : opened.credits;
        beat = setInterval(() => {
          if (performance.now() - heard > SILENCE_MS) broken.abort();
          else outgoing.ping(Math.floor(heard));
        }, PING_MS);
        deps.changed();
      }
    } finally {
      clearTimeout(watch);
      clearInterval(beat);
      control = undefined;
      credit = 0;
      broken.abort();
      await reading?.catch(() => undefined);
      broken.signal.removeEventListener('abort', end);
      deps.changed();
    }
  }

  const running = (async () => {
    for (let delay = FIRST_RETRY_MS; !closed.signal.aborted; delay = Math.min(delay * 2, LAST_RETRY_MS)) {
      const broken = new AbortController();
      const close = () => broken.abort();
      closed.signal.addEventListener('abort', close, { once: true });
      const since = performance.now();
      await run(broken).catch((error) => log.debug({ error, endpoint: server.endpoint }, 'a session broke'));
      closed.signal.removeEventListener('abort', close);
      if (performance.now() - since > OPEN_MS) delay = FIRST_RETRY_MS;
      await pause(delay * (0.5 + Math.random() / 2), closed.signal);
    }
  })();

  return {
    server,
    isOpen: () => control !== undefined && performance.now() - heard < SILENCE_MS,
    credits: () => (control ? credit : 0),
    expect(claimId) {
      mine.set(hex(claimId), 'EXPECTED');
      credit -= 1;
    },
    forget(claimId) {
      if (mine.delete(hex(claimId)) && control) credit += 1;
    },
    start(jobs) {
      if (!control) {
        const unsent = jobs.map(({ executionId, claimId }) => ({ execution: toBytes('execution', executionId), claim_id: claimId }));
        giveBack(unsent, 'REFUSED').catch((error) => log.warn({ error }, 'unsent jobs could not be given back'));
        return;
      }
      for (const { claimId } of jobs) mine.set(hex(claimId), 'SENT');
      control.start(jobs);
    },
    async look() {
      if (!looking) {
        looking = (control ? compare(undefined) : Promise.resolve()).finally(() => {
          looking = undefined;
        });
        return void (await looking);
      }
      nextLook ??= looking.then(() => {
        nextLook = undefined;
        return this.look();
      });
      await nextLook;
    },
    async close() {
      closed.abort();
      await running;
    },
  };
}
