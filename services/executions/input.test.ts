import { expect } from 'chai';
import { checkerOf } from './input.ts';

const check = (schema: Record<string, unknown> | undefined, input: Record<string, unknown>) =>
  checkerOf(schema)(input, JSON.stringify(input).length);

const PERSON = {
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 1 },
    age: { type: 'integer', minimum: 0 },
    tags: { type: 'array', items: { type: 'string' } },
    home: { type: 'object', properties: { 'a/b': { type: 'number' } }, required: ['a/b'] },
    nick: { anyOf: [{ type: 'string' }, { type: 'null' }] },
  },
  required: ['name'],
  additionalProperties: false,
};

describe('the check of an input', () => {
  it('lets everything through without a schema, and what fits one', () => {
    expect(check(undefined, { a: 1 })).to.equal(undefined);
    expect(check(PERSON, { name: 'Ada', age: 36, tags: ['x'], home: { 'a/b': 1 }, nick: null })).to.equal(undefined);
  });

  it('names each place that is wrong by a JSON Pointer', () => {
    const fault = check(PERSON, { age: -1, tags: ['x', 2], home: {}, nick: 1, other: true });
    expect(fault).to.include({ reason: 'INPUT_INVALID', domain: 'executions.millrace', code: 3 });
    const fields = fault?.violations.map((violation) => violation.field);
    expect(new Set(fields)).to.deep.equal(
      new Set([
        'execution.input/name',
        'execution.input/age',
        'execution.input/tags/1',
        'execution.input/home/a~1b',
        'execution.input/nick',
        'execution.input/other',
      ]),
    );
    expect(fault?.violations.find((violation) => violation.field.endsWith('/name'))?.description).to.equal('is required');
    expect(fault?.violations.find((violation) => violation.field.endsWith('/other'))?.description).to.equal('is not allowed');
  });

  const endless: [string, Record<string, unknown>, Record<string, unknown>][] = [
    ['a regular expression that backtracks without end', { properties: { a: { pattern: '^(a+)+$' } } }, { a: `${'a'.repeat(40)}b` }],
    [
      'a comparison of all pairs',
      { properties: { a: { uniqueItems: true } } },
      { a: Array.from({ length: 150_000 }, (_, index) => index) },
    ],
    ['a schema that doubles at each step', doubling(40), { a: 1 }],
  ];
  for (const [what, schema, input] of endless) {
    it(`stops ${what}, and remembers it`, () => {
      const checker = checkerOf(schema);
      const first = checker(input, JSON.stringify(input).length);
      expect(first?.message).to.include('takes longer than');
      expect(checker({}, 2)).to.equal(first);
    });
  }

  it('tells of a schema that refers to itself, or to nothing', () => {
    expect(check({ $ref: '#' }, { a: 1 })?.message).to.include('nested too deeply');
    expect(check({ $ref: '#/nothing' }, { a: 1 })?.message).to.include('Unresolved $ref');
  });

  it('says only the first error of a big input', () => {
    const fault = check({ properties: { a: { items: { type: 'string' } } } }, { a: Array.from({ length: 20_000 }, (_, index) => index) });
    expect(fault?.violations).to.have.length(1);
  });
});

function doubling(depth: number): Record<string, unknown> {
  const steps = Array.from({ length: depth }, (_, index) => [
    `s${index}`,
    { allOf: [{ $ref: `#/$defs/s${index + 1}` }, { $ref: `#/$defs/s${index + 1}` }] },
  ]);
  return { $ref: '#/$defs/s0', $defs: { ...Object.fromEntries(steps), [`s${depth}`]: { type: 'object' } } };
}
