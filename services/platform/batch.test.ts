import { expect } from 'chai';
import { openBatch } from './batch.ts';
import { openPace } from './pace.ts';

const sqlError = (errno: number, sqlState = '40001') => Object.assign(new Error(`errno ${errno}`), { errno, sqlState });

describe('a shared commit', () => {
  it('takes what waits while another is in flight, one at a time and in order', async () => {
    const runs: number[][] = [];
    let inFlight = 0;
    const batch = openBatch<number, number>({
      name: 'test',
      maxItems: 4,
      async run(items) {
        expect(++inFlight).to.equal(1);
        await new Promise((resolve) => setTimeout(resolve, 2));
        runs.push(items);
        inFlight -= 1;
        return items.map((item) => item * 2);
      },
    });
    const answers = await Promise.all([1, 2, 3, 4, 5, 6].map((item) => batch.add(item)));
    expect(answers).to.deep.equal([2, 4, 6, 8, 10, 12]);
    expect(runs).to.deep.equal([
      [1, 2, 3, 4],
      [5, 6],
    ]);
  });

  it('fails only the items that fail alone', async () => {
    const batch = openBatch<number, number>({
      name: 'test',
      async run(items) {
        if (items.includes(3)) throw sqlError(1062, '23000');
        return items.map((item) => (item === 5 ? new Error('its own') : item));
      },
    });
    const outcomes = await Promise.allSettled([1, 2, 3, 4, 5].map((item) => batch.add(item)));
    expect(outcomes.map((one) => one.status)).to.deep.equal(['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'rejected']);
  });

  it('repeats the whole after a deadlock, and fails all when the connection is lost', async () => {
    let tries = 0;
    const deadlocked = openBatch<number, number>({
      name: 'test',
      run: async (items) => (++tries < 3 ? Promise.reject(sqlError(1213)) : items),
    });
    expect(await Promise.all([deadlocked.add(1), deadlocked.add(2)])).to.deep.equal([1, 2]);
    let calls = 0;
    const lost = openBatch<number, number>({
      name: 'test',
      run: () => {
        calls += 1;
        return Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNRESET', fatal: true }));
      },
    });
    expect((await Promise.allSettled([lost.add(1), lost.add(2)])).map((one) => one.status)).to.deep.equal(['rejected', 'rejected']);
    expect(calls).to.equal(1);
  });

  it('respects bytes, and refuses what is too much to wait', async () => {
    const runs: number[] = [];
    const batch = openBatch<string, string>({
      name: 'test',
      maxBytes: 10,
      maxQueue: 3,
      sizeOf: (item) => item.length,
      async run(items) {
        runs.push(items.length);
        return items;
      },
    });
    const outcomes = await Promise.allSettled(['aaaaaa', 'bbbbbb', 'c', 'd'].map((item) => batch.add(item)));
    expect(outcomes.map((one) => one.status)).to.deep.equal(['fulfilled', 'fulfilled', 'fulfilled', 'rejected']);
    expect(runs).to.deep.equal([1, 2]);
  });
});

describe('a pace', () => {
  it('counts what came of late, the older the less', () => {
    let now = 0;
    const pace = openPace(50, () => now);
    for (let n = 0; n < 10; n += 1) pace.add();
    expect(pace.recent()).to.equal(10);
    now = 50;
    expect(pace.recent()).to.be.closeTo(3.68, 0.01);
    pace.add(2);
    expect(pace.recent()).to.be.closeTo(5.68, 0.01);
    now = 1000;
    expect(pace.recent()).to.be.below(0.001);
  });
});
