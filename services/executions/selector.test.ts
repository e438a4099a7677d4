import { expect } from 'chai';
import { ANY, labelsOf, matches, merge, nameOf, textOf } from './selector.ts';

describe('a selector', () => {
  it('is matched by labels that have all of it', () => {
    const gpu = { region: 'eu', gpu: 'true' };
    for (const selector of [{}, null, undefined, { region: 'eu' }, gpu]) expect(matches(gpu, selector)).to.equal(true);
    for (const selector of [{ region: 'us' }, { gpu: '' }, { zone: 'a' }, { ...gpu, zone: 'a' }, { toString: 'x' }])
      expect(matches(gpu, selector), JSON.stringify(selector)).to.equal(false);
  });

  it('has a name that its order does not change, and its labels do', () => {
    expect(nameOf({})).to.equal(ANY);
    expect(nameOf({ a: '1', b: '2' })).to.equal(nameOf({ b: '2', a: '1' }));
    const names = [{ a: '1' }, { a: '2' }, { b: '1' }, { a: '1', b: '1' }, { 'a=1,b': '1' }].map(nameOf);
    expect(new Set(names).size).to.equal(5);
    expect(names[0]).to.match(/^[0-9a-f]{40}$/);
  });

  it('of an automation and its queue is both, unless they contradict each other', () => {
    expect(merge({ a: '1' }, { b: '2' })).to.deep.equal({ selector: { a: '1', b: '2' } });
    expect(merge({ a: '1' }, { a: '1' })).to.deep.equal({ selector: { a: '1' } });
    expect(merge({ a: '1' }, { a: '2' })).to.include({ conflict: 'a' });
  });

  it('is read from columns and told in words', () => {
    expect([null, undefined, {}, '{}', '{"b":"2","a":"1"}'].map(labelsOf)).to.deep.equal([null, null, null, null, { b: '2', a: '1' }]);
    expect([textOf({ b: '2', a: '1' }), textOf({})]).to.deep.equal(['a=1, b=2', 'no labels']);
  });
});
