import { expect } from 'chai';
import fc from 'fast-check';
import { Schedule_Overlap as Overlap } from '#gen/millrace/schedules/v1/schedule.ts';
import { decide } from './overlap.ts';

const MAX = 3;
const word = (policy: Overlap, active: number, buffered: number): string => {
  const { act, stops, clears } = decide(policy, { active, buffered }, MAX);
  return [act, stops, clears && 'clears'].filter(Boolean).join(' ');
};

describe('a tick', () => {
  it('starts when nothing goes on, whatever the policy', () => {
    for (const policy of [
      Overlap.SKIP,
      Overlap.BUFFER_ONE,
      Overlap.BUFFER_ALL,
      Overlap.CANCEL_OTHER,
      Overlap.TERMINATE_OTHER,
      Overlap.ALLOW_ALL,
    ])
      expect(word(policy, 0, 0)).to.equal('START');
  });

  it('does as its policy says beside one that goes on, and beside others that wait', () => {
    const said: [Overlap, string, string, string][] = [
      [Overlap.SKIP, 'SKIP', 'SKIP', 'SKIP'],
      [Overlap.BUFFER_ONE, 'BUFFER', 'SKIP', 'SKIP'],
      [Overlap.BUFFER_ALL, 'BUFFER', 'BUFFER', 'SKIP'],
      [Overlap.CANCEL_OTHER, 'BUFFER CANCEL clears', 'BUFFER CANCEL clears', 'BUFFER CANCEL clears'],
      [Overlap.TERMINATE_OTHER, 'START KILL clears', 'START KILL clears', 'START KILL clears'],
      [Overlap.ALLOW_ALL, 'START', 'START', 'START'],
    ];
    for (const [policy, alone, withOne, withMost] of said)
      expect([word(policy, 1, 0), word(policy, 1, 1), word(policy, 1, MAX)], String(policy)).to.deep.equal([alone, withOne, withMost]);
  });

  // Any order of ticks and ends, each decided as admit.ts and settle.ts do.
  it('never leaves more active or waiting than its policy allows', () => {
    const policies = [Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.BUFFER_ALL, Overlap.CANCEL_OTHER];
    fc.assert(
      fc.property(fc.constantFrom(...policies), fc.array(fc.boolean(), { maxLength: 60 }), (policy, steps) => {
        let active = 0;
        let buffered = 0;
        for (const isTick of steps) {
          if (isTick) {
            const { act, clears } = decide(policy, { active, buffered }, MAX);
            if (clears) buffered = 0;
            if (act === 'START') active += 1;
            if (act === 'BUFFER') buffered += 1;
          } else if (active > 0) {
            active -= 1;
            if (active === 0 && buffered > 0) {
              buffered -= 1;
              active += 1;
            }
          }
          expect(active).to.be.at.most(1);
          expect(buffered).to.be.at.most({ [Overlap.SKIP]: 0, [Overlap.BUFFER_ALL]: MAX }[policy as number] ?? 1);
          if (active === 0) expect(buffered).to.equal(0);
        }
      }),
    );
  });
});
