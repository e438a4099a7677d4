import { expect } from 'chai';
import { withoutValues } from './telemetry.ts';

describe('a statement in a trace', () => {
  it('has no value of any kind', () => {
    const statement = `UPDATE t SET a = 'it''s \\' a\nsecret', b = X'0a1b', c = 0xCAFE, d = "more \\" secret", e = -12.50, f1 = NULL WHERE id IN ('', 7)`;
    expect(withoutValues(statement)).to.equal('UPDATE t SET a = ?, b = X?, c = ?, d = ?, e = -?, f1 = NULL WHERE id IN (?, ?)');
  });

  it('is cut where it is long, not before its values have gone', () => {
    expect(withoutValues(`SELECT '${'secret'.repeat(500)}' ${', a'.repeat(1000)}`))
      .to.have.length(1000)
      .and.not.include('secret');
  });
});
