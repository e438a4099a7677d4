import { expect } from 'chai';
import { Concurrency_Policy as Policy } from '#gen/millrace/automations/v1/spec.ts';
import { type Concurrency, concurrencyOf, limitOf, placeFor, tooOld, valueAt } from './concurrency.ts';

describe('a concurrency limit', () => {
  const of = (key: string[], input: unknown) => limitOf('aut_1', { max: 1, key, policy: 'QUEUE', maxQueued: 0 }, input)?.key;

  it('reads JSON Pointers as RFC 6901 has them', () => {
    const input = { foo: ['bar', 'baz'], '': 0, 'a/b': 1, 'm~n': 8, o: { z: 1, a: 2 } };
    const values = ['', '/foo/1', '/', '/a~1b', '/m~0n', '/foo/01', '/foo/-', '/nothing/there', '/toString', '/o'].map((at) =>
      valueAt(input, at),
    );
    expect(values.slice(1)).to.deep.equal(['baz', 0, 1, 8, null, null, null, null, { a: 2, z: 1 }]);
    expect(values[0]).to.deep.equal(input);
    expect(valueAt(undefined, '/x')).to.equal(null);
  });

  it('has one key for the same values, which people can read when it is short', () => {
    expect(of(['/customer'], { customer: 'acme', n: 1 })).to.equal('aut_1 [["/customer","acme"]]');
    expect(of([], { n: 1 })).to.equal('aut_1 []');
    expect(of(['/o'], { o: { a: 1, b: 2 } })).to.equal(of(['/o'], { o: { b: 2, a: 1 } }));
    expect(of(['/a'], { a: 1 })).to.not.equal(of(['/a'], { a: '1' }));
    expect(of(['/a'], {})).to.equal(of(['/a'], { a: null }));
    for (const odd of ['é', 'x'.repeat(300)]) expect(of(['/a'], { a: odd })).to.match(/^aut_1 #[0-9a-f]{64}$/);
    expect(limitOf('aut_1', null, {})).to.equal(null);
  });

  it('starts, lets wait, skips or refuses', () => {
    const limit = (rest: Partial<Concurrency>) => ({ max: 2, policy: 'QUEUE' as const, maxQueued: 0, ...rest });
    expect(placeFor(limit({}), 1, 0)).to.equal('START');
    expect(placeFor(limit({}), 2, 0)).to.equal('WAIT');
    expect(placeFor(limit({ policy: 'DROP_NEW' }), 1, 0)).to.equal('START');
    expect(placeFor(limit({ policy: 'DROP_NEW' }), 2, 0)).to.equal('SKIP');
    expect(placeFor(limit({ maxQueued: 3 }), 2, 2)).to.equal('WAIT');
    expect(placeFor(limit({ maxQueued: 3 }), 2, 3)).to.equal('REFUSE');
    expect(placeFor(limit({ policy: 'CANCEL_OLD', maxQueued: 1 }), 2, 9)).to.equal('WAIT');
  });

  it('makes room by the oldest', () => {
    const all = [3, 1, 2].map((n) => ({ execution: Buffer.from([n]) }));
    expect(tooOld(all, 2).map(({ execution }) => execution[0])).to.deep.equal([1]);
    expect(tooOld(all, 3)).to.deep.equal([]);
  });

  it('is as the spec has it', () => {
    expect(concurrencyOf({ concurrency: undefined })).to.equal(null);
    const spec = { max: 3, key: ['/a'], policy: Policy.DROP_NEW, maxQueued: 7 };
    expect(concurrencyOf({ concurrency: spec })).to.deep.equal({ max: 3, key: ['/a'], policy: 'DROP_NEW', maxQueued: 7 });
  });
});
