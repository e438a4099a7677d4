import { expect } from 'chai';
import { reasonOf, refusal } from './fixture.test.ts';
import { openHashing } from './hashing.ts';

describe('hashing passwords', () => {
  it('is argon2id with the agreed cost, and salted', async () => {
    const hashing = await openHashing();
    const [one, other] = await Promise.all([hashing.hash('the same'), hashing.hash('the same')]);
    expect(one)
      .to.match(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
      .and.not.to.equal(other);
    expect(await hashing.verify(one, 'the same')).to.equal(true);
    expect(await hashing.verify(one, 'another')).to.equal(false);
    expect(await hashing.verify(undefined, 'the same')).to.equal(false);
    const composed = await hashing.hash('caf\u00e9 noir');
    expect(await hashing.verify(composed, 'cafe\u0301 noir')).to.equal(true); // the same characters, typed on another system
  });

  it('refuses what it cannot do soon, and goes on', async () => {
    const hashing = await openHashing({ concurrency: 1, queue: 2 });
    const outcomes = await Promise.all(
      Array.from({ length: 6 }, () =>
        hashing.hash('x').then(
          () => 'done',
          (fault) => `${fault.reason} ${fault.retryAfterMs}`,
        ),
      ),
    ); // prettier-ignore
    expect(outcomes).to.deep.equal(['done', 'done', 'done', ...Array(3).fill('OVERLOADED 1000')]);
    await hashing.hash('x');
  });

  it('forgets who has gone', async () => {
    const hashing = await openHashing({ concurrency: 1, queue: 1 });
    const running = hashing.hash('x');
    const gone = new AbortController();
    const left = hashing.hash('x', gone.signal).catch((error) => error);
    expect(await reasonOf(hashing.hash('x'))).to.equal('OVERLOADED');
    gone.abort(new Error('gone'));
    expect((await left).message).to.equal('gone');
    const next = hashing.hash('x'); // in the place that was left
    expect((await refusal(hashing.hash('x'))).code).to.equal(8);
    await Promise.all([running, next]);
  });
});
