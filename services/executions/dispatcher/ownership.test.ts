import { expect } from 'chai';
import fc from 'fast-check';
import { newBytes } from '#platform/id.ts';
import { often } from '../../../tests/long.ts';
import { chosen, decide } from './ownership.ts';

const PLAIN = { labels: {}, drained: 0 };
const some = (count: number): Buffer[] => Array.from({ length: count }, newBytes);

describe('who owns which server', () => {
  it('spreads servers over the dispatchers, and moves only those of one that goes', () => {
    const dispatchers = some(4);
    const servers = some(400);
    const before = servers.map((server) => chosen(server, dispatchers));
    for (const dispatcher of dispatchers) expect(before.filter((one) => one?.equals(dispatcher)).length).to.be.within(60, 140);
    const after = servers.map((server) => chosen(server, dispatchers.slice(1)));
    servers.forEach((_, index) => {
      if (!before[index]?.equals(dispatchers[0] as Buffer)) expect(after[index]).to.deep.equal(before[index]);
    });
  });

  it('gives each free server to exactly one of those that live, and takes from nobody who does', () => {
    const shape = fc.record({
      live: fc.integer({ min: 1, max: 4 }),
      dead: fc.integer({ min: 0, max: 2 }),
      owners: fc.array(fc.nat(6), { maxLength: 12 }),
    });
    fc.assert(
      fc.property(shape, ({ live, dead, owners }) => {
        const all = some(live + dead);
        const dispatchers = all.slice(0, live);
        const servers = owners.map((owner) => ({ id: newBytes(), endpoint: 'x:1', owner: all[owner] ?? null, owner_epoch: 3, ...PLAIN }));
        const view = { dispatchers, servers };
        const mineOf = (me: Buffer) => servers.filter(({ owner }) => owner?.equals(me)).map(({ id }) => ({ id, epoch: 3 }));
        const decisions = dispatchers.map((me) => decide(me, mineOf(me), view, true));
        for (const server of servers) {
          const claimants = decisions.filter(({ claim }) => claim.includes(server)).length;
          const isHeld = dispatchers.some((one) => server.owner?.equals(one));
          expect(claimants).to.equal(isHeld ? 0 : 1);
        }
        for (const { lost } of decisions) expect(lost).to.deep.equal([]);
      }),
      often('owners of servers'),
    );
  });

  it('inherits from nobody before it has been in contact for long enough', () => {
    const [me, dead] = some(2) as [Buffer, Buffer];
    const servers = [{ id: newBytes(), endpoint: 'x:1', owner: dead, owner_epoch: 1, ...PLAIN }];
    expect(decide(me, [], { dispatchers: [me], servers }, false).claim).to.deep.equal([]);
    expect(decide(me, [], { dispatchers: [me], servers }, true).claim).to.deep.equal(servers);
  });

  it('gives up what has another owner or another epoch, and hands over what another should have', () => {
    const [me, other] = some(2) as [Buffer, Buffer];
    const servers = some(40).map((id) => ({ id, endpoint: 'x:1', owner: me, owner_epoch: 2, ...PLAIN }));
    const mine = servers.map(({ id }) => ({ id, epoch: 2 }));
    const { release, lost } = decide(me, mine, { dispatchers: [me, other], servers }, true);
    expect(release.length).to.be.within(5, 35);
    expect(lost).to.deep.equal([]);
    const [taken, ...rest] = servers;
    const now = [{ ...taken, owner: other, owner_epoch: 3, ...PLAIN } as (typeof servers)[number], ...rest];
    expect(decide(me, mine, { dispatchers: [me], servers: now }, true).lost).to.deep.equal([taken?.id]);
    expect(decide(me, mine, { dispatchers: [me], servers: [] }, true).lost).to.have.length(40);
  });
});
