import { expect } from 'chai';
import { type Expressions, openExpressions } from './expressions.ts';

describe('expressions of users', function () {
  this.timeout(30_000);
  let expressions: Expressions;
  before(() => {
    expressions = openExpressions({ patienceMs: 400 });
  });
  after(() => expressions.stop());

  const variables = {
    method: 'POST',
    headers: { 'x-github-event': 'push' },
    query: { a: '1' },
    body: { n: 3, ref: 'refs/heads/main', list: Array.from({ length: 300 }, (_, n) => n), owner: { login: 'ann' }, none: null },
  };
  const made = async (expression: string): Promise<unknown> => {
    const outcome = await expressions.evaluate(expression, variables);
    return 'value' in outcome ? outcome.value : outcome;
  };
  const errorOf = async (expression: string): Promise<string> => {
    const outcome = await expressions.evaluate(expression, variables);
    return 'error' in outcome ? outcome.error : `no error but ${JSON.stringify(outcome.value)}`;
  };

  it('decide and map over headers, query, body and method', async () => {
    expect(await made('headers["x-github-event"] == "push" && body.ref.startsWith("refs/heads/")')).to.equal(true);
    expect(await made('method == "POST" && query.a == "1" && body.n > 2')).to.equal(true);
    expect(await made('"x-none" in headers || has(body.nothing)')).to.equal(false);
    expect(
      await made('{"who": body.owner.login, "n": int(body.n) + 1, "half": body.n / 2.0, "none": body.none, "l": [1u, true]}'),
    ).to.deep.equal({
      who: 'ann',
      n: 4,
      half: 1.5,
      none: null,
      l: [1, true],
    });
    expect(await made('body')).to.deep.equal(variables.body);
  });

  it('say what is wrong with them before they are used', async () => {
    expect(await expressions.faultOf('body.n ==')).to.be.a('string');
    expect(await expressions.faultOf('('.repeat(1900))).to.be.a('string');
    expect(await expressions.faultOf('body.n == 1')).to.equal(undefined);
  });

  it('reach nothing of JavaScript', async () => {
    for (const hostile of [
      'body.constructor',
      'body.__proto__',
      'headers.constructor("return process")()',
      'body.owner.toString()',
      'process.env',
      'globalThis',
      'require("fs")',
      'import("node:fs")',
      'this',
      'body["__proto__"]["polluted"]',
    ])
      expect(await errorOf(hostile), hostile)
        .to.be.a('string')
        .and.not.match(/^no error/);
    expect(({} as Record<string, unknown>).polluted).to.equal(undefined);
    expect(await made('{"__proto__": {"polluted": true}}').then((made) => Object.keys(made as object))).to.deep.equal(['__proto__']);
    expect(await made('size(headers)')).to.equal(1);
  });

  it('are ended when they take too long, and the next one is evaluated', async () => {
    const quadratic = 'body.list.map(a, body.list.map(b, body.list.map(c, a == b && b == c)))';
    const [slow, quick] = await Promise.all([errorOf(quadratic), made('1 + 1')]);
    expect(slow).to.match(/longer than 400 ms|memory/);
    expect(quick).to.equal(2);
    expect(await made('2 + 2')).to.equal(4);
  });

  it('are ended when they take too much memory', async () => {
    const greedy = openExpressions({ threads: 1, patienceMs: 60_000, memoryMb: 24 });
    const doubling = Array.from({ length: 40 }).reduce<string>((inner) => `[${inner}].map(x, x + x)[0]`, '"0123456789abcdef"');
    const bytes = 'body.list.map(a, body.list.map(b, body.list.map(c, string(a) + string(b) + string(c))))';
    for (const hostile of [doubling, bytes]) {
      const outcome = await greedy.evaluate(hostile, variables);
      expect('error' in outcome ? outcome.error : 'none').to.match(/memory|string|longer|stack|length/i);
    }
    expect(await greedy.evaluate('1', variables)).to.deep.equal({ value: 1 });
    await greedy.stop();
  });

  it('make only what JSON can write', async () => {
    for (const odd of ['timestamp("2020-01-01T00:00:00Z")', '{1: 2}', '1.0 / 0.0', 'type(1)'])
      expect(await errorOf(odd), odd).to.match(/JSON|texts/);
    expect(await made('{"at": string(timestamp("2020-01-01T00:00:00Z")), "raw": b"abc"}')).to.deep.equal({
      at: '2020-01-01T00:00:00Z',
      raw: 'YWJj',
    });
  });

  it('wait in a line that is not endless', async () => {
    const narrow = openExpressions({ threads: 1, maxWaiting: 1 });
    const first = narrow.evaluate('1', variables);
    const outcomes = await Promise.allSettled([narrow.evaluate('2', variables), narrow.evaluate('3', variables)]);
    expect(outcomes.some((one) => one.status === 'rejected')).to.equal(true);
    expect(await first).to.deep.equal({ value: 1 });
    await narrow.stop();
  });

  it('of one sender delay those of another by no more than one turn', async () => {
    const narrow = openExpressions({ threads: 1, patienceMs: 200 });
    const slow = 'body.list.map(a, body.list.map(b, body.list.map(c, a == b && b == c)))';
    let done = 0;
    const heap = Array.from({ length: 20 }, () => narrow.evaluate(slow, variables).then(() => (done += 1)));
    expect(await narrow.evaluate('1', variables)).to.deep.equal({ value: 1 });
    expect(done).to.be.at.most(2);
    await narrow.stop();
    await Promise.all(heap);
    const crowded = openExpressions({ threads: 1 });
    const all = await Promise.allSettled(Array.from({ length: 120 }, () => crowded.evaluate('1', variables)));
    expect(all.some(({ status }) => status === 'rejected')).to.equal(true);
    await crowded.stop();
  });
});
