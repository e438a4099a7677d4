import { expect } from 'chai';
import { LINKS, PARTS, planOf, thingOf } from './plan.ts';

const AMOUNTS = { kills: 80, stops: 40, cuts: 130, wipes: 2, fills: 2 };

describe('a plan of chaos', () => {
  it('is the same for the same seed and round, and another for others', () => {
    expect(planOf(1, 2, AMOUNTS)).to.deep.equal(planOf(1, 2, AMOUNTS));
    expect(planOf(1, 2, AMOUNTS)).not.to.deep.equal(planOf(1, 3, AMOUNTS));
    expect(planOf(1, 2, AMOUNTS)).not.to.deep.equal(planOf(2, 2, AMOUNTS));
  });

  it('has as much of everything as was asked, and leaves nothing out', () => {
    const plan = planOf(7, 0, AMOUNTS);
    const things = (what: string) => [...new Set(plan.filter((one) => one.what === what).map(thingOf))];
    const count = (what: string) => plan.filter((one) => one.what === what).length;
    expect([count('kill'), count('stop'), count('cut'), count('wipe'), count('fill')]).to.deep.equal([80, 40, 130, 2, 2]);
    expect(things('kill')).to.have.members(PARTS);
    expect(things('cut')).to.have.members(LINKS);
    expect(things('fill')).to.deep.equal(['disk']);
    expect(things('wipe')).to.deep.equal(['broker']);
    for (const part of PARTS) expect(plan.filter((one) => one.what === 'kill' && one.part === part)).to.have.length(10);
  });
});
