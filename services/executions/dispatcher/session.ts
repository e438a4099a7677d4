// The session with one automation server that this dispatcher owns: two streams, control and output, opened again until it is closed.
//
//   opening -> open (what the server holds is adopted, dropped or given back) -> broken -> opening -> ...
import type { Job, Result } from '#gen/millrace/runner/v1/job.ts';
import type { RunnerServiceService } from '#gen/millrace/runner/v1/runner_service.ts';
import { SessionOpen_Channel, type SessionOpened, type SessionResponse } from '#gen/millrace/runner/v1/session.ts';
import type { ClientOf } from '#platform/client.ts';
import { failpoint } from '#platform/failpoint.ts';
import { fromBytes, toBytes } from '#platform/id.ts';
import { pause } from '#platform/pause.ts';
import type { Labels } from '../selector.ts';
import { type Deps as LedgerDeps, openLedger } from './ledger.ts';
import { type Outgoing, openOutgoing } from './outgoing.ts';
import { receiveOutput } from './output.ts';

export interface Owned {
  id: Buffer;
  endpoint: string;
  epoch: number;
  labels: Labels;
  drained: boolean; // takes nothing new: its owner is told by the database, now and then
}
export interface Session {
  server: Owned;
  isOpen(): boolean; // the server has given a sign of life just now
  credits(): number;
  held(): number; // claims that are not known to be over
  expect(claimId: Buffer): boolean; // a claim is about to be committed, or was by another process; takes a credit. False: it is given back
  forget(claimId: Buffer): void; // it was not
  start(jobs: readonly Job[]): void; // those that were expected; what is to stop meanwhile is given back instead, and ends
  giveBack(jobs: readonly Job[]): void; // or not, after all
  fail(job: Job, result: Result): void; // or it ended before it could start
  look(): Promise<void>; // compares with running
  close(): Promise<void>;
}
interface Deps extends LedgerDeps {
  client: ClientOf<typeof RunnerServiceService>;
  dispatcherId: string;
  opened(): void;
  changed(): void; // credits came, or it opened or broke
}

const OPEN_MS = 5000;
const PING_MS = 2000;
const SILENCE_MS = 8000;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2000;

const isMissing = ({ reason }: { reason: string }): boolean => reason === 'ENVIRONMENT_MISSING';
const claimOf = ({ claimId }: { claimId: Buffer }): Buffer => claimId;

export function openSession(deps: Deps, server: Owned): Session {
  const { log, client, dispatcherId } = deps;
  const serverId = fromBytes('server', server.id);
  const closed = new AbortController();
  let control: Outgoing | undefined; // while it is open
  let credit = 0;
  let heard = 0;
  const ledger = openLedger(deps, server, () => control, closed.signal);
  const openingOf = (channel: SessionOpen_Channel) => openOutgoing({ dispatcherId, epoch: server.epoch, channel, serverId });

  // Never waits for the database: a session outlives it.
  function obey(message: SessionResponse): void {
    heard = performance.now();
    if (message.credit) credit += message.credit.add;
    if (message.draining) credit = 0;
    if (message.credit || message.draining) deps.changed();
    const items = message.refused?.items ?? [];
    if (items.length === 0) return;
    log.debug({ server: serverId, reasons: items.map(({ reason }) => reason) }, 'jobs were refused');
    const [notYet, others] = [items.filter(isMissing), items.filter((item) => !isMissing(item))];
    const refused = ledger.refused(others.map(claimOf), notYet.map(claimOf));
    refused.catch((error) => log.warn({ error }, 'refused jobs could not be given back'));
  }

  // Opens the second stream once it is known what the server shall have.
  async function begin(opened: SessionOpened, outgoing: Outgoing, broken: AbortController): Promise<{ reading: Promise<void> }> {
    if (opened.serverId !== serverId) throw new Error(`${server.endpoint} is another server now`);
    control = outgoing;
    const known = await ledger.adopt(opened);
    failpoint('takeover.adopted');
    const output = openingOf(SessionOpen_Channel.OUTPUT);
    broken.signal.addEventListener('abort', output.close, { once: true });
    const durable = known.map(({ claim_id, line_count, started }) => ({ claimId: claim_id, lines: line_count, started: started === 1 }));
    output.confirm(durable.map((one) => ({ ...one, result: false })));
    const fail = (error: unknown) => {
      if (!broken.signal.aborted) log.warn({ error, endpoint: server.endpoint }, 'output could not be kept now');
      broken.abort();
    };
    const stream = client.session(output, { signal: broken.signal });
    const reading = receiveOutput({ stream, outgoing: output, tell: ledger.tell, heed: ledger.heed, fail });
    credit = opened.draining ? 0 : opened.credits;
    heard = performance.now();
    deps.opened();
    deps.changed();
    return { reading: reading.catch((error) => log.debug({ error }, 'an output stream ended')).finally(() => broken.abort()) };
  }

  // One pair of streams, from their opening to their end.
  async function run(broken: AbortController): Promise<void> {
    const outgoing = openingOf(SessionOpen_Channel.CONTROL);
    broken.signal.addEventListener('abort', outgoing.close, { once: true });
    let reading: Promise<void> | undefined; // once both streams are open
    const watch = setTimeout(() => broken.abort(), OPEN_MS);
    const beat = setInterval(() => {
      if (reading && performance.now() - heard > SILENCE_MS) broken.abort();
      else if (reading) outgoing.ping(Math.floor(heard));
    }, PING_MS);
    try {
      for await (const message of client.session(outgoing, { signal: broken.signal })) {
        clearTimeout(watch);
        if (message.opened) ({ reading } = await begin(message.opened, outgoing, broken));
        else obey(message);
      }
    } finally {
      clearTimeout(watch);
      clearInterval(beat);
      control = undefined;
      credit = 0;
      broken.abort();
      await reading;
      deps.changed();
    }
  }

  function giveBack(jobs: readonly Job[]): void {
    const unsent = jobs.map(({ executionId, claimId }) => ({ execution: toBytes('execution', executionId), claim_id: claimId }));
    ledger.giveBack(unsent, 'REFUSED');
  }

  function keep(jobs: readonly Job[]): void {
    if (control) credit += jobs.length;
    giveBack(jobs);
    deps.changed();
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
    credits: () => (control && !server.drained ? credit : 0),
    held: ledger.held,
    expect(claimId) {
      if (!ledger.expect(claimId)) return false;
      credit -= 1;
      return true;
    },
    forget(claimId) {
      if (ledger.forget(claimId) && control) credit += 1;
    },
    start(jobs) {
      if (!control) return giveBack(jobs);
      const wanted = jobs.filter(({ claimId }) => !ledger.isCancelled(claimId));
      if (wanted.length < jobs.length) keep(jobs.filter((job) => !wanted.includes(job)));
      ledger.send(wanted.map(claimOf));
      control.start(wanted);
    },
    giveBack: keep,
    fail({ executionId, claimId }, result) {
      if (control) credit += 1;
      const told = ledger.tell({ execution: toBytes('execution', executionId), claimId, result });
      told.then((reply) => ledger.heed(claimId, reply)).catch((error) => log.warn({ error }, 'an end could not be told'));
      deps.changed();
    },
    look: ledger.look,
    async close() {
      closed.abort();
      await running;
    },
  };
}
