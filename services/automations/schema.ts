// schema.ts: whether something is a JSON Schema (2020-12) that inputs and outputs can be checked with. Nothing is compiled, nothing fetched.
import { dereference, type OutputUnit, type Schema, Validator } from '@cfworker/json-schema';
import { Struct } from '#gen/google/protobuf/struct.ts';

export type JsonSchema = { [key: string]: unknown };

const MAX_BYTES = 128 * 1024; // as protobuf, so that an automation with both its schemas fits into an event
const TYPES = ['null', 'boolean', 'object', 'array', 'number', 'string', 'integer'];

const text: Schema = { type: 'string' };
const flag = { type: 'boolean' };
const number = { type: 'number' };
const count = { type: 'integer', minimum: 0 };
const schema = { $ref: '#' };
const schemas = { type: 'array', minItems: 1, items: schema };
const schemasByName = { type: 'object', additionalProperties: schema };
const names: Schema = { type: 'array', items: text };
const each = <T>(words: string, rule: T): Record<string, T> => Object.fromEntries(words.split(' ').map((word) => [word, rule]));

// What a JSON Schema is, as a JSON Schema. Source: JSON Schema 2020-12, Core and Validation.
const META = new Validator(
  {
    type: ['object', 'boolean'],
    properties: {
      $schema: { enum: ['https://json-schema.org/draft/2020-12/schema', 'https://json-schema.org/draft/2020-12/schema#'] },
      ...each('$id $ref $anchor $dynamicRef $dynamicAnchor $comment title description format contentEncoding contentMediaType', text),
      ...each('$defs definitions properties patternProperties dependentSchemas', schemasByName),
      ...each(
        'items contains additionalProperties propertyNames unevaluatedItems unevaluatedProperties not if then else contentSchema',
        schema,
      ),
      ...each('prefixItems allOf anyOf oneOf', schemas),
      ...each('maxLength minLength maxItems minItems maxContains minContains maxProperties minProperties', count),
      ...each('maximum exclusiveMaximum minimum exclusiveMinimum', number),
      ...each('uniqueItems deprecated readOnly writeOnly', flag),
      ...each('enum examples', { type: 'array' }),
      type: { anyOf: [{ enum: TYPES }, { type: 'array', minItems: 1, items: { enum: TYPES } }] },
      multipleOf: { type: 'number', exclusiveMinimum: 0 },
      pattern: { type: 'string', format: 'regex' },
      required: names,
      dependentRequired: { type: 'object', additionalProperties: names },
    },
  },
  '2020-12',
  false,
);

// What is wrong with a schema and where, in words; undefined when it is sound.
export function schemaProblem(given: JsonSchema): string | undefined {
  try {
    if (Struct.encode(Struct.wrap(given)).finish().length > MAX_BYTES) return 'it is larger than 128 KiB';
    const { valid, errors } = META.validate(given);
    return valid ? referenceProblem(given) : describe(errors);
  } catch (error) {
    if (error instanceof RangeError) return 'it is nested too deeply';
    return `it cannot be read: ${(error as Error).message}`; // such as an $id that is no URI
  }
}

// Of the errors, which name a place and all places around it, the innermost tells most.
function describe(errors: readonly OutputUnit[]): string {
  const depth = (unit: OutputUnit) => unit.instanceLocation.split('/').length;
  const inner = errors.reduce((best, unit) => (depth(unit) > depth(best) ? unit : best));
  return `at ${inner.instanceLocation}: ${inner.error}`;
}

interface Known extends Schema {
  __absolute_uri__?: string;
  __absolute_ref__?: string;
}

// A reference must lead to a part of the schema, and not back to itself before it has gone on to a part of the value.
function referenceProblem(given: JsonSchema): string | undefined {
  const places = dereference(structuredClone(given)) as Record<string, Known | boolean>;
  const done = new Set<unknown>();
  const open = new Set<unknown>();

  function visit(part: Known | boolean | undefined): string | undefined {
    if (typeof part !== 'object' || done.has(part)) return undefined;
    const at = `at ${new URL(part.__absolute_uri__ ?? 'x:').hash || '#'}`;
    if (open.has(part)) return `${at}: it refers to itself without end`;
    const target = part.__absolute_ref__ === undefined ? true : places[part.__absolute_ref__];
    if (target === undefined) return `${at}: $ref ${part.$ref} leads nowhere; it must begin with # and name a part of the schema`;
    open.add(part);
    for (const next of [target, ...inPlace(part)]) {
      const problem = visit(next);
      if (problem) return problem;
    }
    open.delete(part);
    done.add(part);
    return undefined;
  }

  for (const part of Object.values(places)) {
    const problem = visit(part);
    if (problem) return problem;
  }
  return undefined;
}

// The parts that judge the same value.
const inPlace = ({ allOf = [], anyOf = [], oneOf = [], not, if: when, then, else: otherwise, dependentSchemas = {} }: Known) =>
  [...allOf, ...anyOf, ...oneOf, not, when, then, otherwise, ...Object.values(dependentSchemas)] as (Known | boolean | undefined)[];
