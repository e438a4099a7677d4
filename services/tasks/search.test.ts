import { expect } from 'chai';
import * as search from './search.ts';

describe('search', () => {
  it('keeps each word once, folded to lower case without accents', () => {
    expect(search.document('Buy CRÈME', 'buy crème au lait')).to.equal('w_buy w_creme w_au w_lait');
  });

  it('keeps words that the engines would drop: short ones, stop words, numbers', () => {
    expect(search.document('the a v2 7')).to.equal('w_the w_a w_v2 w_7');
  });

  it('writes words of other scripts in plain letters, and Han characters one by one', () => {
    expect(search.document('Ναί')).to.match(/^w_[0-9a-f]+$/);
    expect(search.document('漢字abc').split(' ')).to.have.length(3);
  });

  it('never makes more of a query than words that must all be there', () => {
    expect(search.expression('milk +bread -"butter" (x*) @5 ~<>')).to.equal('+w_milk +w_bread +w_butter +w_x +w_5');
    expect(search.expression(' +-*~"()<>@ ')).to.equal(undefined);
  });

  it('cuts long words to what an index takes', () => {
    expect(search.document('x'.repeat(500))).to.have.length(80);
    expect(search.expression(`${'x'.repeat(500)}`)).to.equal(`+${search.document('x'.repeat(400))}`);
  });
});
