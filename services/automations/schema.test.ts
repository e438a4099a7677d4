import { expect } from 'chai';
import { type JsonSchema, schemaProblem } from './schema.ts';

describe('a JSON Schema', () => {
  const sound: Record<string, JsonSchema> = {
    'is empty': {},
    'describes an object': {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      properties: { n: { type: ['integer', 'null'], minimum: 0 } },
      required: ['n'],
    },
    'refers to its parts': { $ref: '#/$defs/a', $defs: { a: { type: 'string', pattern: '^x+$' } } },
    'recurs into the parts of a value': { type: 'object', properties: { next: { $ref: '#' } } },
    'recurs through items': { $defs: { tree: { type: 'array', items: { $ref: '#/$defs/tree' } } }, $ref: '#/$defs/tree' },
    'uses one part twice': { $defs: { a: { type: 'string' } }, allOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/a' }] },
    'has names that look like keywords': { properties: { type: { type: 'string' }, $ref: { const: { $ref: 5 } } } },
    'has keywords of others': { 'x-widget': 7, title: 'T' },
  };
  for (const [what, schema] of Object.entries(sound)) {
    it(`that ${what} is sound`, () => expect(schemaProblem(schema)).to.equal(undefined));
  }

  const unsound: Record<string, [JsonSchema, RegExp]> = {
    'an unknown type': [{ properties: { n: { type: 'int' } } }, /#\/properties\/n\/type/],
    'a type that is a number': [{ type: 5 }, /#\/type/],
    'a property that is no schema': [{ properties: { n: 'string' } }, /#\/properties\/n/],
    'a negative length': [{ minLength: -1 }, /#\/minLength/],
    'a broken regular expression': [{ properties: { s: { pattern: '(' } } }, /#\/properties\/s\/pattern/],
    'an empty list of choices': [{ anyOf: [] }, /#\/anyOf/],
    'required as a flag': [{ properties: { n: { required: true } } }, /#\/properties\/n\/required/],
    'another draft': [{ $schema: 'http://json-schema.org/draft-07/schema#' }, /#\/\$schema/],
    'a reference to nowhere': [{ properties: { n: { $ref: '#/$defs/none' } } }, /#\/properties\/n: .*leads nowhere/],
    'a reference to the internet': [{ $ref: 'https://example.com/schema' }, /leads nowhere/],
    'a reference to itself': [{ $ref: '#' }, /without end/],
    'references in a circle': [{ $defs: { a: { allOf: [{ $ref: '#/$defs/b' }] }, b: { not: { $ref: '#/$defs/a' } } } }, /without end/],
    'an id that is no URI': [{ $id: 'http://[' }, /cannot be read/],
    'more than 128 KiB': [{ description: 'x'.repeat(128 * 1024) }, /128 KiB/],
  };
  for (const [what, [schema, problem]] of Object.entries(unsound)) {
    it(`with ${what} is refused, saying where`, () => expect(schemaProblem(schema)).to.match(problem));
  }

  it('is left as it was given', () => {
    const schema = { properties: { n: { $ref: '#' } } };
    const before = structuredClone(schema);
    schemaProblem(schema);
    expect(schema).to.deep.equal(before);
    expect(Object.getOwnPropertyNames(schema)).to.deep.equal(['properties']);
  });

  it('may be as deep as a message can be, and is refused when it is deeper', () => {
    const nested = (levels: number): JsonSchema => (levels === 0 ? {} : { not: nested(levels - 1) });
    expect(schemaProblem(nested(50))).to.equal(undefined);
    let deep: JsonSchema = {};
    for (let level = 0; level < 20_000; level += 1) deep = { not: deep };
    expect(schemaProblem(deep)).to.match(/too deeply/);
  });
});
