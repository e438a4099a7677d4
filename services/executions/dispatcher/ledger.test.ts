import { expect } from 'chai';
import { SessionOpened } from '#gen/millrace/runner/v1/session.ts';
import { newBytes } from '#platform/id.ts';
import { openLog } from '#platform/log.ts';
import { type Claim, openLedger } from './ledger.ts';
import type { Outgoing } from './outgoing.ts';
import type { Reply, Report } from './report.ts';

const claim = (rest: Partial<Claim> = {}): Claim => ({
  execution: newBytes(),
  claim_id: newBytes(),
  attempt: 1,
  state: 'RUNNING',
  started: 0,
  line_count: 0,
  is_young: 0,
  ...rest,
});
const ids = (claims: readonly { claim_id: Buffer }[]): string[] => claims.map(({ claim_id }) => claim_id.toString('hex'));

describe('the ledger of a session', () => {
  function open(running: Claim[], during: () => void = () => undefined) {
    const reports: Report[] = [];
    const dropped: string[] = [];
    const cancelled: string[] = [];
    const adopted: string[] = [];
    const collect = (into: string[]) => (claims: readonly Buffer[]) => void into.push(...claims.map((one) => one.toString('hex')));
    const control = { drop: collect(dropped), cancel: collect(cancelled) } as Pick<Outgoing, 'drop' | 'cancel'> as Outgoing;
    const ledger = openLedger(
      {
        log: openLog('silent'),
        async claims() {
          const now = [...running];
          await new Promise((resolve) => setImmediate(resolve));
          during(); // what happens between the read and the comparison
          return now;
        },
        async report(report): Promise<Reply> {
          reports.push(report);
          return { kind: 'STALE' };
        },
        adopted: (claims) => void adopted.push(...ids(claims)),
        disowned: () => undefined,
        lost: new Set<string>(),
      },
      { id: newBytes(), epoch: 1 },
      () => control,
      new AbortController().signal,
    );
    const opened = (held: Claim[]) => SessionOpened.fromPartial({ held: held.map(({ claim_id }) => ({ claimId: claim_id })) } as object);
    const lost = () => reports.filter(({ given }) => given === 'LOST').map(({ claimId }) => claimId.toString('hex'));
    return { ledger, opened, lost, dropped, cancelled, adopted };
  }

  it('adopts what it holds and shall have, drops the rest, and gives back what it does not hold', async () => {
    const [kept, stopping, missing, foreign] = [claim(), claim({ state: 'CANCELLING' }), claim(), claim()];
    const { ledger, opened, lost, dropped, cancelled, adopted } = open([kept, stopping, missing]);
    expect(ids(await ledger.adopt(opened([kept, stopping, foreign])))).to.have.members(ids([kept, stopping]));
    expect(adopted).to.have.members(ids([kept, stopping]));
    expect(dropped).to.include(ids([foreign])[0]);
    expect(cancelled).to.deep.equal(ids([stopping]));
    expect(lost()).to.deep.equal(ids([missing]));
  });

  it('does not take a claim for lost that is on its way', async () => {
    const [expected, sent] = [claim(), claim()];
    const { ledger, opened, lost } = open([expected, sent], () => ledger.send([sent.claim_id]));
    ledger.expect(expected.claim_id);
    ledger.expect(sent.claim_id);
    await ledger.adopt(opened([]));
    await ledger.look();
    expect(lost()).to.deep.equal([]);
  });

  it('leaves a claim alone that another process made just now, gives it back later, and does not start it after that', async () => {
    const [young, old] = [claim({ is_young: 1 }), claim()];
    const { ledger, lost } = open([young, old]);
    await ledger.look();
    expect(lost()).to.deep.equal(ids([old]));
    expect(ledger.expect(young.claim_id)).to.equal(true);
    expect(ledger.expect(old.claim_id)).to.equal(false);
    expect(ledger.held()).to.equal(1);
  });

  it('gives a young claim back that a server does not have which was taken over', async () => {
    const young = claim({ is_young: 1 });
    const { ledger, opened, lost } = open([young]);
    await ledger.adopt(opened([]));
    expect(lost()).to.deep.equal(ids([young]));
  });

  it('gives back what was sent on a stream that broke before it came', async () => {
    const one = claim();
    const { ledger, opened, lost } = open([one]);
    ledger.expect(one.claim_id);
    ledger.send([one.claim_id]);
    await ledger.adopt(opened([]));
    expect(lost()).to.deep.equal(ids([one]));
  });

  it('drops nothing that was sent after it has read', async () => {
    const late = claim();
    const { ledger, dropped } = open([], () => {
      ledger.expect(late.claim_id);
      ledger.send([late.claim_id]);
    });
    await ledger.look();
    expect(dropped).to.deep.equal([]);
  });

  it('tells of a cancel that came before the claim was sent, and of one that came with it', async () => {
    const [late, unsent, other] = [claim({ state: 'CANCELLING' }), claim({ state: 'CANCELLING' }), claim()];
    const { ledger, cancelled } = open([late, unsent, other], () => ledger.send([late.claim_id]));
    for (const one of [late, unsent, other]) ledger.expect(one.claim_id);
    await ledger.look();
    expect(cancelled).to.deep.equal(ids([late]));
    expect([late, unsent, other].map((one) => ledger.isCancelled(one.claim_id))).to.deep.equal([false, true, false]);
    ledger.forget(unsent.claim_id);
    expect(ledger.isCancelled(unsent.claim_id)).to.equal(false);
  });

  it('looks again for whoever asks during a look', async () => {
    let looks = 0;
    const { ledger } = open([], () => {
      looks += 1;
    });
    await Promise.all([ledger.look(), ledger.look(), ledger.look()]);
    expect(looks).to.equal(2);
  });
});
