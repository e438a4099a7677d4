// The claims of one server as this dispatcher knows them, and how they are brought into line with running and with what the server holds.
// A claim is expected before it is committed and sent after: whoever compares never takes a fresh one for a lost one.
import type { SessionOpened } from '#gen/millrace/runner/v1/session.ts';
import { failpoint } from '#platform/failpoint.ts';
import { fromBytes } from '#platform/id.ts';
import type { Logger } from '#platform/log.ts';
import { hex } from '../engine/sql.ts';
import * as metrics from './metrics.ts';
import type { Outgoing } from './outgoing.ts';
import type { Given, Reply, Report } from './report.ts';
import * as traces from './traces.ts';

// A claim of the server as running tells it.
export interface Claim {
  execution: Buffer;
  claim_id: Buffer;
  attempt: number;
  state: 'RUNNING' | 'CANCELLING';
  started: number;
  line_count: number;
  is_young: number; // who made it may not have told of it yet
}
export interface Ledger {
  held(): number;
  expect(claimId: Buffer): boolean; // false: it was taken for lost before, and is given back
  forget(claimId: Buffer): boolean; // whether it was expected
  isCancelled(claimId: Buffer): boolean; // it is to stop, and was not sent yet
  send(claimIds: readonly Buffer[]): void;
  tell(told: Omit<Report, 'server' | 'epoch'>): Promise<Reply>;
  heed(claimId: Buffer, reply: Reply): void;
  adopt(opened: SessionOpened): Promise<Claim[]>; // answers those that the server has and shall have
  giveBack(claims: readonly Named[], given: Given): void;
  refused(claimIds: readonly Buffer[], notYet: readonly Buffer[]): Promise<void>;
  look(): Promise<void>;
}
export interface Deps {
  log: Logger;
  claims(server: Buffer, signal: AbortSignal): Promise<Claim[]>; // waits for a database that is away, until the signal
  report(report: Report): Promise<Reply>;
  adopted(claims: readonly Claim[]): void; // that this dispatcher did not have before
  disowned(): void; // somebody else owns the server
  lost: { has(claim: string): boolean; add(claim: string): void }; // claims that were given back as lost, of all sessions
}
interface Named {
  execution: Buffer;
  claim_id: Buffer;
}

export function openLedger(
  deps: Deps,
  server: { id: Buffer; epoch: number },
  control: () => Outgoing | undefined,
  signal: AbortSignal,
): Ledger {
  const { log, lost } = deps;
  const mine = new Map<string, 'EXPECTED' | 'SENT'>(); // by the claim's id in hexadecimal
  const cancelled = new Set<string>(); // those of mine that are to stop before they were sent
  let looking: Promise<unknown> | undefined;
  let nextLook: Promise<void> | undefined; // for those that ask during a look: it may have read before what they want seen

  const tell = (told: Omit<Report, 'server' | 'epoch'>) => deps.report({ ...told, server: server.id, epoch: server.epoch });

  function remove(claim: string): boolean {
    cancelled.delete(claim);
    return mine.delete(claim);
  }

  // Drops what does not count any longer, and gives the server up when it has another owner.
  function heed(claimId: Buffer, reply: Reply): void {
    if (reply.kind === 'NOT_OWNER') deps.disowned();
    if (reply.kind === 'STALE') control()?.drop([claimId]);
    if (reply.kind === 'NOT_OWNER' || (reply.kind === 'KEPT' && !reply.isOver)) return;
    remove(hex(claimId));
    traces.end(claimId);
  }

  // The server does not take them, or does not have them.
  function giveBack(claims: readonly Named[], given: Given): void {
    for (const { execution, claim_id: claimId } of claims) {
      const told = tell({ execution, claimId, given }).then((reply) => heed(claimId, reply));
      told.catch((error) => log.warn({ error, given }, 'a claim could not be given back'));
    }
  }

  // `held` is what the server has, when it has just said so; else it is taken to have what it was sent.
  async function compare(held?: ReadonlySet<string>): Promise<Claim[]> {
    const before = new Map(mine);
    const has = held ?? new Set([...before].flatMap(([claim, stage]) => (stage === 'SENT' ? [claim] : [])));
    const present = new Map((await deps.claims(server.id, signal)).map((claim) => [hex(claim.claim_id), claim]));
    const stale = [...has].filter((claim) => !present.has(claim));
    for (const claim of stale) remove(claim);
    control()?.drop(stale.map((claim) => Buffer.from(claim, 'hex')));
    const known = [...present.values()].filter(({ claim_id }) => has.has(hex(claim_id)));
    const stopping = [...present].flatMap(([claim, { state }]) => (state === 'CANCELLING' ? [claim] : []));
    for (const claim of stopping) if (mine.get(claim) === 'EXPECTED') cancelled.add(claim);
    const sent = stopping.filter((claim) => has.has(claim) || mine.get(claim) === 'SENT'); // some since it was read
    control()?.cancel(sent.map((claim) => Buffer.from(claim, 'hex')));
    const isLost = (claim: string) => !has.has(claim) && (before.get(claim) === 'SENT' || !mine.has(claim));
    const gone = [...present.values()].filter(({ claim_id, is_young }) => isLost(hex(claim_id)) && (held || !is_young));
    for (const { claim_id } of gone) lost.add(hex(claim_id));
    giveBack(gone, 'LOST');
    return known;
  }

  async function look(): Promise<void> {
    if (!looking) {
      looking = (control() ? compare() : Promise.resolve()).finally(() => {
        looking = undefined;
      });
      await looking;
      return;
    }
    nextLook ??= looking.then(() => {
      nextLook = undefined;
      return look();
    });
    await nextLook;
  }

  return {
    held: () => mine.size,
    expect(claimId) {
      if (lost.has(hex(claimId))) return false;
      mine.set(hex(claimId), 'EXPECTED');
      return true;
    },
    forget: (claimId) => remove(hex(claimId)),
    isCancelled: (claimId) => cancelled.has(hex(claimId)),
    send(claimIds) {
      for (const claimId of claimIds) mine.set(hex(claimId), 'SENT');
    },
    tell,
    heed,
    giveBack,
    look,

    async adopt({ held }) {
      const before = new Set(mine.keys());
      const claims = new Set(held.map(({ claimId }) => hex(claimId)));
      for (const claim of claims) mine.set(claim, 'SENT');
      const known = await compare(claims);
      const taken = known.filter(({ claim_id }) => !before.has(hex(claim_id)));
      metrics.adopted.inc(taken.length);
      deps.adopted(taken);
      const counts = { held: claims.size, adopted: known.length };
      if (claims.size > 0) log.info({ server: fromBytes('server', server.id), ...counts }, 'a session was taken up');
      return known;
    },

    async refused(claimIds, notYet) {
      const claims = await deps.claims(server.id, signal);
      const among = (wanted: ReadonlySet<string>) => claims.filter(({ claim_id }) => wanted.has(hex(claim_id)));
      failpoint('refused.before_return');
      giveBack(among(new Set(claimIds.map(hex))), 'REFUSED');
      giveBack(among(new Set(notYet.map(hex))), 'NOT_YET');
    },
  };
}
